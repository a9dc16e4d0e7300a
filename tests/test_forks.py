"""What a forked child finds."""

from __future__ import annotations

import io
import logging
import os
import signal
import threading
import time

import pytest

from chegou_otel import _forks, _guard


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


# -- calm: no fork while a lock is held that nobody renews


class Dawdling(io.RawIOBase):
    """A stream whose writes take their time, as those into a pipe may; the buffer above it is locked meanwhile."""

    def __init__(self):
        self.writing = threading.Event()

    def writable(self):
        return True

    def write(self, data):
        self.writing.set()
        time.sleep(0.01)
        return len(data)


@pytest.fixture
def no_alarm():
    """Where one is set (by RQ for a job, by pytest for a test), a fork waits for nobody."""
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, *before)


@pytest.fixture
def patience(monkeypatch):
    """So long that a busy machine is not taken for a wait."""
    monkeypatch.setattr(_forks, "_PATIENCE", 1.0)
    return 1.0


@pytest.fixture
def talkative(monkeypatch):
    """A thread that writes lines of ours, one after the other; yields the stream that they go to."""
    raw = Dawdling()
    stream = io.TextIOWrapper(io.BufferedWriter(raw))
    handler, ended = logging.StreamHandler(stream), threading.Event()
    monkeypatch.setattr(_guard.logger, "propagate", False)
    _guard.logger.addHandler(handler)
    _guard.write_calmly()

    def talk():
        while not ended.wait(0.002):
            _guard.logger.warning("a line")

    thread = threading.Thread(target=talk)
    thread.start()
    assert raw.writing.wait(10)
    yield stream
    ended.set()
    thread.join()
    _guard.logger.removeHandler(handler)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_can_write_where_a_line_of_ours_was_being_written_when_it_was_forked(no_alarm, patience, talkative):
    """The buffer's lock is nobody's to renew: a work-horse would wait with its own first line until RQ's time-out kills it."""

    def write():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        talkative.write("a child's line\n")
        talkative.flush()

    for _ in range(20):
        pid = os.fork()
        if not pid:
            try:
                write()
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_waits_for_what_hangs_only_once(no_alarm, patience):
    inside, done = threading.Event(), threading.Event()

    def hang():
        with _forks.calm():
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=hang)
    thread.start()
    inside.wait(10)
    began = time.monotonic()
    try:
        assert [in_child(lambda: 7) for _ in range(40)] == [7] * 40
        with _forks.calm():  # nor is an application's thread held up
            took = time.monotonic() - began
    finally:
        done.set()
        thread.join()

    assert patience <= took < 10 * patience


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_calm_is_to_be_had_again_after_a_fork_in_parent_and_child(patience):
    def quick():
        began = time.monotonic()
        with _forks.calm(), _forks.calm():
            return time.monotonic() - began < patience / 2

    def on_a_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(quick()))
        thread.start()
        thread.join()
        return found[0]

    assert in_child(lambda: quick() and on_a_thread() and in_child(on_a_thread)) == 1
    assert on_a_thread()


def test_what_an_alarm_has_left_taken_is_to_be_had_again(patience):
    """It may strike between the lock and the block."""
    calm = _forks.Calm()
    taken = threading.Thread(target=calm._lock.acquire)
    taken.start()
    taken.join()
    with calm():
        """After the first one's patience."""
    began = time.monotonic()
    with calm():
        assert time.monotonic() - began < patience / 2


# -- heirs


@pytest.fixture
def renewed(monkeypatch):
    """Who was renewed in this process, in order."""
    seen = []
    monkeypatch.setattr(_forks, "_renewals", [lambda: seen.append("all")])
    return seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_heir_renews_one_child_in_place_of_all_others(renewed):
    _forks.expect(lambda: renewed.append("heir"))

    assert in_child(lambda: renewed == ["heir"] and _forks.inherited and in_child(lambda: renewed == ["heir", "all"])) == 1
    _forks.expect(None)
    assert in_child(lambda: renewed == ["all"] and not _forks.inherited) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_heir_is_not_for_what_another_thread_forks(renewed):
    _forks.expect(lambda: renewed.append("heir"))
    found = []
    thread = threading.Thread(target=lambda: found.append(in_child(lambda: renewed == ["all"])))
    thread.start()
    thread.join()
    _forks.expect(None)

    assert found == [1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_when_an_heir_fails_all_are_renewed(renewed):
    _forks.expect(lambda: 1 / 0)

    assert in_child(lambda: renewed == ["all"]) == 1
    _forks.expect(None)


def test_hooks_of_one_package_are_let_go_and_nobody_else_s(monkeypatch):
    registered = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.append(hooks))

    def theirs():
        """Of the SDK."""

    def another_s():
        """Of a library that is imported on another thread just then."""

    theirs.__module__, another_s.__module__ = "opentelemetry.sdk.trace", "random"
    with _forks.unhooked("opentelemetry."):
        os.register_at_fork(after_in_child=theirs)
        os.register_at_fork(after_in_child=another_s)
    os.register_at_fork(after_in_child=theirs)

    assert registered == [{"after_in_child": another_s}, {"after_in_child": theirs}]
