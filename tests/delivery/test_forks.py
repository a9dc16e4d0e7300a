"""Forks at any moment: no deadlock, nothing lost, nothing twice, no shared socket."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.delivery.otlp import Scope
from tests.delivery.items import log, span
from tests.delivery.receiver import Answer, wait_for


def forked(child):
    """Runs ``child`` in a fork; returns its process ID. Whatever it raises is its exit code 1."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(40)  # whatever goes wrong, nobody is left behind
    code = 1
    try:
        child()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid, timeout=20.0):
    """The exit code, within ``timeout``."""

    def gone():
        done, status = os.waitpid(pid, os.WNOHANG)
        return (os.waitstatus_to_exitcode(status),) if done else None

    try:
        return wait_for(gone, timeout, "the child's end")[0]
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def tasks():
    """The functions that Python's threads are in. (Libraries in C have threads of their own: grpc begins some in each forked child.)"""
    return [frame.f_code.co_qualname for frame in sys._current_frames().values()]


def test_child_and_parent_both_deliver(make, receiver, scope):
    """Each its own, once; the child's totals begin at nothing."""
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("before"))

    def child():
        recorder.append(Kind.SPAN, scope, span("child"))
        assert recorder.ledger()["traces"].created == 1
        assert recorder.flush(5)

    pid = forked(child)
    recorder.append(Kind.SPAN, scope, span("after"))
    assert recorder.flush(5)
    assert ended(pid) == 0
    wait_for(lambda: receiver.counts() == {"before": 1, "child": 1, "after": 1})
    assert receiver.connections == 2


def test_what_a_child_could_not_send_is_adopted(make, receiver, scope):
    """A child that leaves by ``os._exit`` loses nothing; twice arrives only what its own courier was just sending."""
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("parent"))
    assert recorder.flush(5)

    def child():
        for number in range(100):
            recorder.append(Kind.SPAN, scope, span(f"child {number}"))
        os._exit(0)

    ended(forked(child))
    recorder.courier.wake(scan=True)
    wait_for(lambda: len(receiver.counts()) == 101)
    wait_for(lambda: not recorder.pool.adopted)
    repeats = len(receiver.names()) - 101
    assert repeats <= recorder.ledger()["traces"].ambiguous


def test_work_horse(make, receiver, scope):
    """A reserved segment: written by the child, handed over and shipped by the parent, used again by the next child."""
    recorder = make(receiver.url)
    measured = []
    recorder.handlers[Kind.MEASUREMENT] = measured.append

    for number in range(20):
        segment = recorder.reserve()

        def child(segment=segment, number=number):
            recorder.become(segment)
            before = tasks()
            recorder.append(Kind.SPAN, scope, span(f"job {number}"))
            recorder.append(Kind.SPAN, Scope.of(f"library {number}"), span(f"query {number}"))
            recorder.append(Kind.MEASUREMENT, None, b"%d" % number, Priority.HIGH)
            assert len(tasks()) == len(before) == 1, (before, tasks())
            os._exit(7)

        assert ended(forked(child)) == 7
        assert recorder.drain(segment, 1.0)
        assert measured[-1] == b"%d" % number
    assert recorder.flush(5)

    assert receiver.counts() == {f"{what} {number}": 1 for what in ("job", "query") for number in range(20)}
    scopes = {found.name: name for found, name, _ in receiver.spans}
    assert all(scopes[f"query {number}"] == f"library {number}" for number in range(20))
    assert len(list(recorder.pool.all())) <= 2
    ledger = recorder.ledger()
    assert (ledger["traces"].delivered, ledger["handover"].delivered) == (40, 20)


def test_a_long_job_is_shipped_as_it_grows(make, receiver, scope):
    """The parent does not wait for the child's end."""
    recorder = make(receiver.url)
    recorder.start()
    segment = recorder.reserve()
    pipe = os.pipe()

    def child():
        recorder.become(segment)
        recorder.append(Kind.SPAN, scope, span("first"))
        os.read(pipe[0], 1)
        recorder.append(Kind.SPAN, scope, span("second"))

    pid = forked(child)
    wait_for(lambda: receiver.names() == ["first"])
    os.write(pipe[1], b"x")
    ended(pid)
    recorder.drain(segment)
    assert recorder.flush(5)
    assert receiver.names() == ["first", "second"]


def test_a_killed_work_horse_loses_only_what_it_had_not_written(make, receiver, scope):
    """SIGKILL at random moments: every complete frame arrives, once, and the segment can be used again."""
    recorder = make(receiver.url)
    pipe = os.pipe()
    told = 0
    for round_ in range(30):
        segment = recorder.reserve()

        def child(segment=segment, round_=round_):
            recorder.become(segment)
            for number in range(1_000_000):
                assert recorder.append(Kind.SPAN, scope, span(f"{round_}/{number}"))
                os.write(pipe[1], b"x")

        pid = forked(child)
        assert select.select([pipe[0]], [], [], 30)[0], "the child did not begin"
        time.sleep(0.0005 * (round_ % 10))
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        assert recorder.drain(segment, 1.0)
        os.set_blocking(pipe[0], False)
        with pytest.raises(BlockingIOError):
            while True:
                told += len(os.read(pipe[0], 65536))
    assert recorder.flush(10)

    counts = receiver.counts()
    assert set(counts.values()) == {1}
    # The writer may have died after a frame was complete and before it told.
    assert told <= len(counts) <= told + 30
    ledger = recorder.ledger()["traces"]
    assert (ledger.held, ledger.delivered) == (0, len(counts))


def test_grandchild_of_a_work_horse(make, receiver, scope):
    """It claims a segment of its own, without a thread; the parent finds it."""
    recorder = make(receiver.url)
    recorder.start()
    segment = recorder.reserve()

    def grandchild():
        recorder.append(Kind.SPAN, scope, span("grandchild"))
        assert len(tasks()) == 1, tasks()

    def child():
        recorder.become(segment)
        recorder.append(Kind.SPAN, scope, span("child"))
        assert ended(forked(grandchild)) == 0
        recorder.append(Kind.SPAN, scope, span("child again"))

    assert ended(forked(child)) == 0
    recorder.drain(segment)
    recorder.courier.wake(scan=True)
    wait_for(lambda: receiver.counts() == {"child": 1, "child again": 1, "grandchild": 1})


def test_a_job_that_records_more_than_a_segment(make, receiver, scope):
    """The child makes further segments; the parent ships them."""
    recorder = make(receiver.url, segment_bytes=64 * 1024)
    segment = recorder.reserve()

    def child():
        recorder.become(segment)
        for number in range(500):
            assert recorder.append(Kind.SPAN, scope, span(f"span {number}", 1000))

    assert ended(forked(child)) == 0
    recorder.drain(segment)
    wait_for(lambda: len(receiver.names()) >= 500)
    assert recorder.flush(3)
    assert set(receiver.counts().values()) == {1}
    wait_for(lambda: len(list(recorder.pool.all())) <= 3)


def test_many_jobs_while_the_receiver_is_down(make, receiver, scope):
    """Small jobs share a segment, so a thousand of them fit into the bound."""
    receiver.default = Answer(503)
    recorder = make(receiver.url, segment_bytes=256 * 1024, max_bytes=1 << 20)
    for number in range(300):
        segment = recorder.reserve()

        def child(segment=segment, number=number):
            recorder.become(segment)
            assert recorder.append(Kind.SPAN, scope, span(f"job {number}", 500))

        assert ended(forked(child)) == 0
        recorder.drain(segment)
    receiver.default = Answer()
    wait_for(lambda: recorder.flush(5), 20)
    assert receiver.counts() == {f"job {number}": 1 for number in range(300)}


def test_orphaned_work_horse_is_shipped_by_another_process(make, receiver, scope):
    """The parent dies first; what the child records later is shipped by whoever of the service is there, as it grows."""
    make(receiver.url)
    pipe, ready = os.pipe(), os.pipe()

    def worker():
        recorder = make(receiver.url)
        segment = recorder.reserve()

        def horse():
            recorder.become(segment)
            recorder.append(Kind.SPAN, scope, span("early"))
            os.write(ready[1], b"x")
            os.read(pipe[0], 1)
            recorder.append(Kind.SPAN, scope, span("late"))
            os.write(ready[1], b"x")
            os.read(pipe[0], 1)

        forked(horse)
        os.read(ready[0], 1)
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(worker)) == -signal.SIGKILL
    other = make(receiver.url)
    other.start()
    wait_for(lambda: "early" in receiver.names())
    os.write(pipe[1], b"x")
    os.read(ready[0], 1)
    wait_for(lambda: receiver.counts() == {"early": 1, "late": 1})
    assert len(other.pool.adopted) == 1
    os.write(pipe[1], b"x")
    wait_for(lambda: not other.pool.adopted)


def test_a_further_segment_of_a_work_horse_waits_for_its_parent(make, receiver, scope):
    """It may hold the job's outcome, which the parent asks for: no other process takes it while the parent lives."""
    ready, go = os.pipe(), os.pipe()

    def worker():
        recorder = make(receiver.url, segment_bytes=64 * 1024)
        outcomes = []
        recorder.handlers[Kind.OUTCOME] = outcomes.append
        segment = recorder.reserve()

        def horse():
            recorder.become(segment)
            for number in range(200):
                recorder.append(Kind.SPAN, scope, span(f"job {number}", 1000))
            recorder.append(Kind.OUTCOME, None, b"finished", Priority.HIGH)
            os._exit(0)

        assert ended(forked(horse)) == 0
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        recorder.drain(segment, 2)
        assert outcomes == [b"finished"]
        assert recorder.flush(5)

    pid = forked(worker)
    os.read(ready[0], 1)
    other = make(receiver.url)
    assert other.pool.adopt() == 0
    os.write(go[1], b"x")
    assert ended(pid) == 0
    assert receiver.counts() == {f"job {number}": 1 for number in range(200)}


def test_work_horses_keep_to_their_parent_s_bound(make, scope, spool):
    """While nothing can be delivered: what has no room is counted in what there is, not written beside it."""
    recorder = make("http://127.0.0.1:9", max_bytes=8 * 256 * 1024, segment_bytes=256 * 1024)

    for _ in range(12):
        segment = recorder.reserve()

        def child(segment=segment):
            recorder.become(segment)
            for number in range(60):
                recorder.append(Kind.SPAN, scope, span(f"{number}" + "x" * 10_000), Priority.HIGH)
            os._exit(0)

        assert ended(forked(child)) == 0
        recorder.drain(segment)

    assert sum(path.stat().st_size for path in spool.glob("*.seg")) <= 9 * 256 * 1024
    account = recorder.ledger()["traces"]
    assert account.created == 12 * 60
    assert account.dropped == {"full": account.created - account.held}
    assert account.held > 100


def test_forks_while_other_threads_append(make, receiver, scope):
    """No lock is inherited in a locked state, and no frame is half-written in the child."""
    recorder = make(receiver.url)
    stop = threading.Event()
    counts = [0, 0]

    def busy(which):
        while not stop.is_set():
            recorder.append(Kind.SPAN, scope, span(f"thread {which}/{counts[which]}"))
            counts[which] += 1

    threads = [threading.Thread(target=busy, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    try:
        pids = []
        for number in range(40):

            def child(number=number):
                recorder.append(Kind.SPAN, scope, span(f"child {number}"))
                # A deadlock never ends. Forty processes beside two busy threads may take long.
                assert recorder.flush(30)

            pids.append(forked(child))
        assert [ended(pid, 45) for pid in pids] == [0] * 40
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    wait_for(lambda: recorder.flush(5), 20)
    expected = {f"thread {which}/{number}" for which in range(2) for number in range(counts[which])}
    expected |= {f"child {number}" for number in range(40)}
    wait_for(lambda: len(receiver.names()) >= len(expected))
    assert receiver.counts() == dict.fromkeys(expected, 1)


def test_fork_during_an_export(make, receiver, scope):
    """The child neither waits for the parent's request nor touches its connection."""
    receiver.plan = [Answer(delay=1.0)]
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("parent"))
    recorder.courier.wake()
    wait_for(lambda: receiver.requests)

    def child():
        recorder.append(Kind.SPAN, scope, span("child"))
        begin = time.monotonic()
        assert recorder.flush(5)
        assert time.monotonic() - begin < 0.8

    assert ended(forked(child)) == 0
    assert recorder.flush(5)
    assert receiver.counts() == {"parent": 1, "child": 1}
    assert recorder.ledger()["traces"].ambiguous == 0


def test_a_child_that_inherits_nothing_open(make, receiver, scope):
    """Inherited connections are closed in the child at once, segments with its first frame; the parent's locks stay."""
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("x"))
    assert recorder.flush(5)
    path, held = recorder.pool.current.path, recorder.pool.current.fd
    (connection,) = recorder.courier._connections.values()
    connected = connection.sock.inner.fileno()
    file = os.fstat(held).st_ino

    def child():
        with pytest.raises(OSError):
            os.fstat(connected)
        recorder.append(Kind.SPAN, scope, span("child"))
        assert file not in {os.fstat(int(each)).st_ino for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")}
        assert path not in Path("/proc/self/maps").read_text()
        # Another process still finds it locked.
        recorder.pool.adopt()
        assert not recorder.pool.adopted
        assert recorder.pool.current.path != path

    assert ended(forked(child)) == 0


def test_log_in_a_child_after_drain_is_counted_once(make, receiver, scope):
    """Frames of every signal in one child segment move by their own cursors."""
    recorder = make(receiver.url)
    for number in range(5):
        segment = recorder.reserve()

        def child(segment=segment, number=number):
            recorder.become(segment)
            recorder.append(Kind.LOG, scope, log(f"log {number}"), Priority.INFO)

        assert ended(forked(child)) == 0
        recorder.drain(segment)
        assert recorder.flush(5)
    assert [found.body.string_value for found, _, _ in receiver.logs] == [f"log {number}" for number in range(5)]


SPAWNED = """if True:
    import os, sys
    sys.path.insert(0, os.getcwd())
    from chegou_otel.delivery.frames import Kind
    from chegou_otel.delivery.otlp import Scope
    from chegou_otel.delivery.recorder import Recorder
    from tests.delivery.items import RESOURCE, span
    recorder = Recorder(RESOURCE, service="shop", spool_dir=sys.argv[2])
    recorder.become(sys.argv[1])
    assert recorder.append(Kind.SPAN, Scope.of("spawned"), span("spawned"))
    assert recorder.flush(1)
    os._exit(0)
"""


@pytest.mark.parametrize("memory", [False, True])
def test_a_spawned_work_horse(make, receiver, scope, tmp_path, memory):
    """It finds its segment by the address, on disk or in the parent's memory."""
    recorder = make(receiver.url, memory=memory)
    for _ in range(2):
        segment = recorder.reserve()
        subprocess.run([sys.executable, "-c", SPAWNED, segment.address, str(tmp_path)], check=True)
        assert recorder.drain(segment)
    assert recorder.flush(5)
    assert receiver.counts() == {"spawned": 2}
    assert len(list(recorder.pool.all())) == 1
