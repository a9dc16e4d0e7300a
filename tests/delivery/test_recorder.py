"""The recorder by itself: bounds, priorities, signal handlers, foreign exceptions, kills."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from chegou_otel import _guard
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.delivery.otlp import Scope, resource_block
from tests.delivery.items import log, metric, span, template
from tests.delivery.receiver import Answer, wait_for
from tests.redis_server import free_port

NOWHERE = "http://127.0.0.1:9"


class Struck(Exception):
    """What a signal handler raises into whatever runs, as RQ does."""


def inside(frame):
    """Whether a signal struck in our code."""
    return f"{os.sep}delivery{os.sep}" in frame.f_code.co_filename and frame.f_code.co_filename != __file__


def strikes(error):
    """How many came at once: one may strike while an earlier one is on its way out."""
    return 0 if error is None else 1 + strikes(error.__context__)


@pytest.fixture
def alarms():
    """Calls a handler at random moments of what the main thread does."""
    before = signal.getsignal(signal.SIGALRM)
    # What strikes inside a finalizer is lost to anybody, on bare Python too.
    gc.collect()
    gc.disable()

    def start(handler, seconds):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    gc.enable()


def drain_names(recorder, receiver, url_is_up=True):
    wait_for(lambda: recorder.flush(5), 20)
    return receiver.counts()


@pytest.mark.parametrize("registered", [True, False])
def test_alarms_inside_append(make, receiver, alarms, registered, monkeypatch):
    """An exception that a signal handler raises reaches the caller, every time; each frame is complete or absent, and the lock is free."""
    monkeypatch.setattr(_guard, "_let_through", (Struck,) if registered else ())
    recorder = make(receiver.url, segment_bytes=64 * 1024, max_bytes=64 << 20)
    raised = struck = number = 0
    accepted = set()
    scopes = [Scope.of("alarms", str(each)) for each in range(50)]
    made = template("n")

    def handler(_number, frame):
        nonlocal raised
        if inside(frame):
            raised += 1
            raise Struck

    # On a busy machine every attempt to make the first segment would be struck.
    assert recorder.append(Kind.SPAN, scopes[0], made(0))
    alarms(handler, 0.0003)
    while raised < 1000:
        try:
            # A new scope now and then, and a small segment: the slow path is struck, too.
            number += 1
            if recorder.append(Kind.SPAN, scopes[number % 50], made(number)):
                accepted.add(number)
        except Struck as error:
            struck += strikes(error)
    signal.setitimer(signal.ITIMER_REAL, 0)

    assert struck == raised
    counts = drain_names(recorder, receiver)
    assert {f"n{each:08}" for each in accepted} <= set(counts)
    assert set(counts.values()) == {1}
    account = recorder.ledger()["traces"]
    assert account.held == 0
    thread = threading.Thread(target=recorder.append, args=(Kind.SPAN, Scope.of("x"), span("free")))
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


def test_handlers_that_record(make, receiver, alarms, scope):
    """A signal handler may record while a frame is being written: both arrive."""
    recorder = make(receiver.url, segment_bytes=64 * 1024)
    nested = depth = 0
    scopes = [Scope.of("alarms", str(each)) for each in range(70)]
    inner, outer = template("i"), template("o")

    def handler(*_):
        nonlocal nested, depth
        if depth > 3:
            return  # slower than the alarms
        depth += 1
        nested += 1  # at once: this handler is interrupted by itself, too
        mine = nested
        assert recorder.append(Kind.SPAN, scopes[mine % 50], inner(mine))
        depth -= 1

    alarms(handler, 0.0003)
    number = 0
    while nested < 2000:
        if number > 100 * (nested + 1):
            time.sleep(0.0003)  # until the next alarm: on a busy machine the backlog would reach the bound before the alarms are through
            continue
        assert recorder.append(Kind.SPAN, scopes[number % 70], outer(number))
        number += 1
    signal.setitimer(signal.ITIMER_REAL, 0)

    counts = drain_names(recorder, receiver)
    assert counts == dict.fromkeys([f"i{each + 1:08}" for each in range(nested)] + [f"o{each:08}" for each in range(number)], 1)


def test_handlers_under_a_tracer(make, receiver, alarms, scope):
    """With a trace function (a debugger, coverage) handlers run between any two lines of ours."""
    recorder = make(receiver.url, segment_bytes=64 * 1024)
    nested = struck = 0
    inner, outer = template("i"), template("o")

    def handler(_number, frame):
        nonlocal nested, struck
        if not inside(frame):
            return
        nested += 1
        mine = nested
        if mine % 2:
            recorder.append(Kind.SPAN, scope, inner(mine))
        if mine % 3 == 0:
            struck += 1
            raise Struck

    def tracer(*_):
        return tracer

    before = sys.gettrace()
    accepted, caught = set(), 0
    alarms(handler, 0.0005)
    sys.settrace(tracer)
    number = 0
    try:
        while nested < 600:
            try:
                number += 1
                if recorder.append(Kind.SPAN, scope, outer(number)):
                    accepted.add(f"o{number:08}")
            except Struck as error:
                caught += strikes(error)
    finally:
        sys.settrace(before)
        signal.setitimer(signal.ITIMER_REAL, 0)

    assert caught == struck
    counts = drain_names(recorder, receiver)
    assert accepted <= set(counts)
    assert set(counts.values()) == {1}


def test_threads(make, receiver, scope):
    """Many threads, one segment chain, nothing lost."""
    recorder = make(receiver.url, segment_bytes=256 * 1024)

    def work(which):
        for number in range(2000):
            assert recorder.append(Kind.SPAN, scope, span(f"{which}/{number}"))

    threads = [threading.Thread(target=work, args=(which,)) for which in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = drain_names(recorder, receiver)
    assert len(counts) == 12_000
    assert set(counts.values()) == {1}


def test_priorities_under_pressure(make, scope):
    """Debug logs go first, then info logs, then spans; errors and metrics are taken until the bound is reached."""
    recorder = make(NOWHERE, max_bytes=1 << 20, segment_bytes=64 * 1024)
    accepted = dict.fromkeys(Priority, 0)
    first_refused = {}
    filler = span("x", 1000)
    for number in range(1000):
        for priority in Priority:
            if recorder.append(Kind.SPAN, scope, filler, priority):
                accepted[priority] += 1
            else:
                first_refused.setdefault(priority, sum(accepted.values()) * len(filler) / (1 << 20))

    share = [first_refused[priority] for priority in Priority]
    assert 0.42 < share[0] < 0.55
    assert 0.65 < share[1] < 0.80
    assert 0.80 < share[2] < 0.93
    assert 0.90 < share[3] < 1.0
    account = recorder.ledger()["traces"]
    assert account.held == sum(accepted.values())
    assert set(account.dropped) == {"full", "pressure"}
    assert account.created == 4000


def test_takes_everything_again_after_relief(make, receiver, scope):
    """Once the backlog is shipped, segments are used again and nothing is refused."""
    receiver.default = Answer(503)
    recorder = make(receiver.url, max_bytes=512 * 1024, segment_bytes=64 * 1024)
    while recorder.append(Kind.SPAN, scope, span("x", 1000), Priority.LOW):
        pass
    receiver.default = Answer()
    wait_for(lambda: recorder.flush(5), 20)
    recorder.courier.wake()
    wait_for(lambda: recorder.append(Kind.LOG, scope, log("debug"), Priority.LOW))
    assert len(list(recorder.pool.all())) < 8


def test_memory_and_disk_stay_bounded(make, receiver, scope, spool):
    """Many times the bound passes through few files."""
    recorder = make(receiver.url, max_bytes=1 << 20, segment_bytes=128 * 1024)
    payload = span("x", 1000)
    accepted = 0
    for _ in range(5000):
        if recorder.append(Kind.SPAN, scope, payload):
            accepted += 1
        else:
            time.sleep(0.005)
    wait_for(lambda: recorder.flush(5), 20)
    assert len(receiver.spans) == accepted
    assert sum(file.stat().st_size for file in spool.iterdir()) <= 1 << 20


def test_larger_than_a_segment(make, scope):
    recorder = make(NOWHERE, segment_bytes=64 * 1024)
    assert not recorder.append(Kind.SPAN, scope, span("big", 70_000))
    assert recorder.append(Kind.SPAN, scope, span("small"))
    assert recorder.ledger()["traces"].dropped == {"size": 1}


def test_never_raises(make, scope, monkeypatch):
    """A failure of ours is counted, and the application goes on."""
    monkeypatch.setattr(_guard, "strict", False)
    recorder = make(NOWHERE)
    assert not recorder.append(Kind.SPAN, scope, None)
    assert recorder.append(Kind.SPAN, scope, span("fine"))
    assert recorder.ledger()["traces"].dropped == {"error": 1}
    assert _guard.failures.pop("chegou_otel.delivery.recorder.append") == 1


def test_after_shutdown(make, receiver, scope, spool):
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("x"))
    assert recorder.shutdown(3)
    assert not recorder.append(Kind.SPAN, scope, span("late"))
    account = recorder.ledger()["traces"]
    assert (account.delivered, account.dropped) == (1, {"closed": 1})
    assert list(spool.iterdir()) == []


def test_the_next_process_adopts(make, receiver, scope):
    """What could not be sent is sent by the next process of the service, not by that of another one."""
    recorder = make(f"http://127.0.0.1:{free_port()}")
    recorder.append(Kind.SPAN, scope, span("left"))
    assert not recorder.shutdown(0.5)
    stranger = make(receiver.url, service="other")
    stranger.start()
    stranger.append(Kind.SPAN, scope, span("stranger"))
    assert stranger.flush(3)
    assert receiver.counts() == {"stranger": 1}
    heir = make(receiver.url)
    heir.start()

    wait_for(lambda: receiver.counts() == {"stranger": 1, "left": 1})
    wait_for(lambda: not heir.pool.adopted)
    assert heir.ledger()["traces"].delivered == 1


def test_the_resource_can_change(make, receiver, scope):
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("old"))
    recorder.resource = resource_block({"service.name": "renamed"})
    recorder.append(Kind.SPAN, scope, span("new"))
    assert recorder.flush(3)
    assert {found.name: resource.attributes[0].value.string_value for found, _, resource in receiver.spans} == {
        "old": "shop",
        "new": "renamed",
    }


def test_a_scope_may_speak_for_another_resource(make, receiver, scope):
    other = Scope.of("tests.other", "1", resource=resource_block({"service.instance.id": "fixed"}))
    recorder = make(receiver.url)
    recorder.append(Kind.METRIC, scope, metric("ours"))
    recorder.append(Kind.METRIC, other, metric("its"))
    recorder.append(Kind.METRIC, scope, metric("ours"))
    assert recorder.flush(5)

    instances = {found.name: [item.value.string_value for item in resource.attributes if item.key == "service.instance.id"]
                 for found, _, resource in receiver.metrics}  # fmt: skip
    assert instances == {"ours": [], "its": ["fixed"]}
    assert {found.name: name for found, name, _ in receiver.metrics} == {"ours": scope.name, "its": "tests.other"}


def test_sink(make, scope):
    """Tests get every frame at once."""
    taken = []
    recorder = make(NOWHERE, sink=lambda *frame: taken.append(frame))
    assert recorder.append(Kind.SPAN, scope, b"abc")
    assert recorder.append(Kind.MEASUREMENT, None, b"def")
    assert taken == [(Kind.SPAN, scope, b"abc"), (Kind.MEASUREMENT, None, b"def")]
    assert recorder.flush(1)
    assert recorder.storage.kind == "sink"


def test_sink_sees_what_a_work_horse_recorded(make, scope):
    taken, measured = [], []
    recorder = make(NOWHERE, sink=lambda *frame: taken.append(frame))
    recorder.handlers[Kind.MEASUREMENT] = measured.append
    segment = recorder.reserve()
    pid = os.fork()
    if not pid:
        recorder.become(segment)
        recorder.append(Kind.SPAN, scope, b"one")
        recorder.append(Kind.LOG, Scope.of("made.in.the.child", "2", "http://schema"), b"two")
        recorder.append(Kind.MEASUREMENT, None, b"three")
        os._exit(0)
    os.waitpid(pid, 0)
    recorder.drain(segment)
    assert [(kind, found.name, found.version, payload) for kind, found, payload in taken] == [
        (Kind.SPAN, "tests.delivery", "1.0", b"one"),
        (Kind.LOG, "made.in.the.child", "2", b"two"),
    ]
    assert taken[1][1].schema_url == "http://schema"
    assert measured == [b"three"]


def test_without_delivery_nothing_is_kept_on_disk(make, scope, spool):
    recorder = make(NOWHERE, deliver=False, segment_bytes=64 * 1024)
    for _ in range(200):
        assert recorder.append(Kind.SPAN, scope, span("x", 1000))
    assert recorder.storage.kind == "memory"
    assert not spool.exists()
    assert recorder.courier is None
    assert recorder.ledger()["traces"].dropped["full"] > 100


def test_ledger_covers_drops_before_the_first_segment(make, scope):
    recorder = make(NOWHERE, segment_bytes=64 * 1024)
    assert not recorder.append(Kind.METRIC, scope, metric("x") * 10_000)
    assert recorder.append(Kind.METRIC, scope, metric("x"))
    account = recorder.ledger()["metrics"]
    assert (account.created, account.held, account.dropped) == (2, 1, {"size": 1})


WRITER = """
import os, sys
sys.path.insert(0, os.getcwd())
from chegou_otel.delivery.endpoints import endpoints
from chegou_otel.delivery.frames import Kind
from chegou_otel.delivery.otlp import Scope
from chegou_otel.delivery.recorder import Recorder
from tests.delivery.items import RESOURCE, span
recorder = Recorder(RESOURCE, service="shop", spool_dir=sys.argv[1], endpoints=endpoints(sys.argv[2], {}), segment_bytes=256 * 1024)
scope = Scope.of("writer")
for number in range(10_000_000):
    if recorder.append(Kind.SPAN, scope, span(f"{sys.argv[3]}/{number}")):
        os.write(1, b"x")
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_hundred_kills(make, receiver, tmp_path):
    """SIGKILL of a process at random moments, while it records and delivers: every complete frame arrives; twice only if ambiguous."""
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(WRITER))
    heir = make(receiver.url)
    heir.start()
    told = {}
    for first in range(0, 100, 5):
        running = [
            subprocess.Popen([sys.executable, script, tmp_path, receiver.url, str(number)], stdout=subprocess.PIPE, cwd=os.getcwd())
            for number in range(first, first + 5)
        ]
        for offset, process in enumerate(running):
            process.stdout.read(1)
            time.sleep(0.001 * ((first + offset) * 37 % 100))
            process.kill()
            told[first + offset] = 1 + len(process.stdout.read())
            process.wait()
        heir.courier.wake(scan=True)

    expected = {f"{which}/{number}" for which, count in told.items() for number in range(count)}

    def arrived():
        heir.courier.wake(scan=True)
        return expected <= set(receiver.names()) and not heir.pool.adopted

    wait_for(arrived, 180)
    counts = receiver.counts()
    # At most one frame of each was complete but not told yet.
    assert len(counts) <= len(expected) + 100
    repeats = sum(count > 1 for count in counts.values())
    account = heir.ledger()["traces"]
    assert repeats <= account.ambiguous
    assert account.held == 0


def test_garbage_collection_of_a_recorder(make, scope):
    """Nothing but its user keeps a closed recorder."""
    import weakref

    recorder = make(NOWHERE, sink=lambda *_: None)
    recorder.shutdown(0)
    ref = weakref.ref(recorder)
    assert ref() is recorder
    gc.collect()


def test_a_backlog_does_not_read_as_a_leak(make, receiver, scope):
    """Forty MiB wait on disk, and are sent later, without as much memory of the process."""
    import psutil

    receiver.default = Answer(503)
    recorder = make(receiver.url)
    payload = span("x", 20_000)
    recorder.append(Kind.SPAN, scope, payload)
    before = psutil.Process().memory_info().rss
    for _ in range(2000):
        recorder.append(Kind.SPAN, scope, payload)
    recorder.courier.wake()
    assert not recorder.flush(0.5)
    assert recorder.ledger()["traces"].held * len(payload) > 38 << 20
    assert psutil.Process().memory_info().rss - before < 16 << 20
