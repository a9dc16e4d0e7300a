"""What a fault on the way does to delivery after it, and to the machine while it lasts."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest

from chegou_otel.delivery import courier, sockets
from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.endpoints import Endpoint
from chegou_otel.delivery.frames import Kind, Signal
from chegou_otel.delivery.transport import Transport
from tests.delivery.faults import FaultySocket
from tests.delivery.items import span
from tests.delivery.receiver import RESET, Answer, raw_server, wait_for


@pytest.fixture
def between(receiver):
    made = FaultySocket(receiver.port)
    yield made
    made.close()


def ways(url, **options):
    return {signal: Endpoint(f"{url}/v1/{signal.name.lower()}", **options) for signal in Signal}


def incompressible(number, size):
    return span(f"{number} {os.urandom(size // 2).hex()}")


def test_a_slow_receiver_is_given_its_time_again_after_a_failure(make, receiver, scope, monkeypatch):
    """A try after a failure is cut short; if it were so for good, a receiver slower than that would never be taken for well."""
    monkeypatch.setattr(courier, "PROBE_SECONDS", 0.2)
    receiver.plan, receiver.default = [RESET], Answer(delay=0.7)
    recorder = make(endpoints=ways(receiver.url, timeout=5.0))
    recorder.append(Kind.SPAN, scope, span("slow"))

    assert recorder.flush(10)
    assert recorder.ledger()["traces"].delivered == 1


def test_413_before_the_body_was_read_is_heard(make, receiver, scope, between):
    """The receiver says so at once and closes: sending fails amid the body, and the answer lies there all the same."""
    between.begin("413 above 2 kB")
    recorder = make(endpoints=ways(between.url, compression=""))
    recorder._become = True  # nothing is sent before all are there
    for number in range(2000):
        recorder.append(Kind.SPAN, scope, incompressible(number, 1000))
    recorder._become = False
    recorder.start()

    wait_for(receiver.names, 10)
    assert recorder.ledger()["traces"].rejected == 0


def test_a_receiver_to_which_everything_is_too_large_is_not_asked_without_a_pause(make, scope, between):
    """Each item alone is refused: that is counted, and does not keep a processor busy."""
    between.begin("413")
    recorder = make(between.url)
    recorder._become = True
    for number in range(2000):
        recorder.append(Kind.SPAN, scope, span(str(number)))
    recorder._become = False
    recorder.start()
    time.sleep(2)

    assert 4 < between.requests < 60
    assert recorder.ledger()["traces"].rejected > 1


def test_no_thread_for_a_look_up_is_a_failed_delivery(make, scope, monkeypatch):
    """At a limit of processes no thread can be started: nothing breaks, and it is tried again."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sockets.look_ups.clear()
    recorder = make("http://collector.example:4318")
    recorder.append(Kind.SPAN, scope, span("kept"))

    assert not recorder.flush(1)
    assert not sockets.look_ups
    account = recorder.ledger()["traces"]
    assert (account.held, account.ambiguous) == (1, 0)
    assert recorder.courier._lanes[0].circuit.failures


def test_a_folder_that_is_removed_is_made_again(make, receiver, scope, spool):
    """Somebody tidied up: what was mapped goes on, and further segments find a place."""
    recorder = make("http://127.0.0.1:9", segment_bytes=64 * 1024)
    assert recorder.append(Kind.SPAN, scope, span("before"))
    shutil.rmtree(spool)
    accepted = 0
    end = time.monotonic() + 3
    while accepted < 500 and time.monotonic() < end:
        accepted += recorder.append(Kind.SPAN, scope, span("after", 1000))

    assert accepted == 500
    assert list(spool.iterdir())


def test_what_memory_held_at_the_end_is_counted_as_lost(make, scope, caplog):
    """No next process will find it."""
    recorder = make("http://127.0.0.1:9", memory=True)
    for _ in range(3):
        recorder.append(Kind.SPAN, scope, span("gone"))
    assert not recorder.shutdown(0.2)

    account = recorder.ledger()["traces"]
    assert (account.held, account.dropped) == (0, {"closed": 3})
    assert "telemetry was lost: 3 traces dropped (closed)" in caplog.text


def test_what_a_clock_that_jumped_back_left_is_sent_in_its_order(make, receiver, scope, monkeypatch):
    """The next process takes over segments by their names, which begin with the time."""
    recorder = make("http://127.0.0.1:9", segment_bytes=64 * 1024)
    real = time.time_ns
    names = []
    for number in range(400):
        if number == 200:
            monkeypatch.setattr(time, "time_ns", lambda: real() - 86_400 * 10**9)
        names.append(f"{number:04d}")
        assert recorder.append(Kind.SPAN, scope, span(names[-1], 1000))
    recorder.shutdown(0.1)

    heir = make(receiver.url)
    assert heir.append(Kind.SPAN, scope, span("heir"))
    wait_for(lambda: len(receiver.names()) >= 400, 10)
    assert [name for name in receiver.names() if name != "heir"] == names


def test_a_success_told_before_the_body_was_sent_delivers_nothing(scope):
    """Whatever says so has not read what it was to take."""

    def hasty(connection):
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        time.sleep(0.2)

    with raw_server(hasty) as url:
        answer = Transport(Endpoint(f"{url}/v1/traces", compression=""), {}).send(os.urandom(8 << 20), time.monotonic() + 5)
    assert answer.verdict is Verdict.AMBIGUOUS
