"""Who is alive."""

from __future__ import annotations

import os
import subprocess
import sys

from chegou_otel.delivery import process


def test_a_process_that_lives_had_begun_by_the_moment_that_is_noted_in_it():
    assert 0 < process.started() <= process.moment()
    assert process.alive(os.getpid(), process.moment())


def test_a_moment_before_it_began_was_another_s_with_the_same_id():
    assert not process.alive(os.getpid(), process.started() - 1)
    assert not process.alive(os.getpid(), 0)
    assert not process.alive(0, process.moment())


def test_a_zombie_and_one_that_is_gone_are_not_alive():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    noted = process.moment()
    assert process.alive(child.pid, noted)

    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive(child.pid, noted)
    child.wait()
    assert not process.alive(child.pid, noted)
