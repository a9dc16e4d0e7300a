"""What a forked child finds."""

from __future__ import annotations

import os
import threading

import pytest

from chegou_otel import _forks


class Holder:
    lock = _forks.FreeLock()


def in_child(check):
    """Run ``check`` in a forked child; what it returns, as a number."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            code = int(check())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_lock_is_one_lock_within_a_process():
    holder, other = Holder(), Holder()

    assert holder.lock is holder.lock
    assert holder.lock is not other.lock
    with holder.lock, holder.lock:
        pass


def test_an_assigned_lock_is_let_go():
    holder = Holder()
    own = holder.lock
    holder.lock = threading.Lock()

    assert holder.lock is own


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_lock_that_a_thread_holds_is_free_in_a_child():
    holder, held, done = Holder(), threading.Event(), threading.Event()

    def hold():
        with holder.lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    try:
        assert in_child(lambda: holder.lock.acquire(timeout=1)) == 1
        assert not holder.lock.acquire(blocking=False)
    finally:
        done.set()
        thread.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_generation_is_one_fork(monkeypatch):
    before, seen = _forks.generation, []
    monkeypatch.setattr(_forks, "_renewals", [*_forks._renewals, lambda: seen.append(_forks.generation)])

    assert in_child(lambda: in_child(lambda: _forks.generation - before)) == 2
    assert in_child(lambda: seen == [before + 1]) == 1
    assert (_forks.generation, seen) == (before, [])
