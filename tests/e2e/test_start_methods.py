"""Every way to get a child: what it records arrives, once, and so does what its parent records before and after."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.delivery.receiver import Receiver, wait_for
from tests.e2e.test_children import ROOT

PROGRAM = """
import multiprocessing, os, sys, threading
import chegou_otel
telemetry = chegou_otel.setup("children", active="always")
from opentelemetry import trace

def record(name):
    trace.get_tracer("children").start_span(name).end()

def run(number):
    record(f"it child {number}")

def fork(number):
    pid = os.fork()
    if not pid:
        run(number)
        os._exit(0 if telemetry.flush(10) else 1)
    assert os.waitpid(pid, 0)[1] == 0

def in_thread(number):
    thread = threading.Thread(target=fork, args=(number,))
    thread.start()
    thread.join()

def method(name):
    def start(number):
        process = multiprocessing.get_context(name).Process(target=run, args=(number,))
        process.start()
        process.join()
        assert process.exitcode == 0
    return start

if __name__ == "__main__":
    how = sys.argv[1]
    start = {"os.fork": fork, "thread": in_thread}.get(how) or method(how)
    record("it before")
    for number in range(3):
        start(number)
        record(f"it after {number}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["os.fork", "thread", "fork", "spawn", "forkserver"])
def test_children_and_parent_deliver_once(tmp_path, how):
    receiver = Receiver()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST"))}
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", program, how],
            env={**inherited, **own},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        expected = dict.fromkeys(["it before", *[f"it {what} {number}" for what in ("child", "after") for number in range(3)]], 1)
        # A child of multiprocessing takes a quarter of a second at its end; what it could not send, its parent finds.
        wait_for(lambda: set(expected) <= set(receiver.names()), 10, f"all of {expected}, not {receiver.names()}; {done.stderr}")
        assert Counter(name for name in receiver.names() if name.startswith("it ")) == expected
    finally:
        receiver.close()
