"""What OpenTelemetry promises of its OTLP exporters over HTTP, by the names of its tests: retries, time-outs, flushes, the end."""

from __future__ import annotations

import email.utils
import threading
import time
from types import SimpleNamespace

import pytest

from chegou_otel import _guard
from chegou_otel.delivery import answers, courier, lanes
from tests.delivery.receiver import HANG, RESET, Answer, raw_server, wait_for
from tests.delivery.upstream.conftest import SIGNALS
from tests.redis_server import free_port


@pytest.fixture
def moments(receiver):
    """When requests came: the receiver answers each by ``plan``, then by 200."""
    seen = []
    plan = []

    def answer(_message):
        seen.append(time.monotonic())
        return plan.pop(0) if plan else Answer()

    receiver.default = answer
    return SimpleNamespace(seen=seen, plan=plan)


@pytest.fixture
def in_haste(monkeypatch):
    """Pauses between two tries of a flush in milliseconds, not tenths of a second."""
    monkeypatch.setattr(courier, "FLUSH_PAUSE", 0.002)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_export_retryable_status_codes(make, receiver, scope, telemetry, status):
    """Promised: these are tried again, and then nothing is lost or doubtful."""
    receiver.plan = [Answer(status)]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    assert recorder.flush(10)

    assert telemetry.arrived(receiver) == ["item"]
    assert len(receiver.requests) == 2
    account = recorder.ledger()[telemetry.row]
    assert (account.delivered, account.ambiguous) == (1, 0)


@pytest.mark.parametrize("status", [401, 403, 404, 408, 500, 501, 302])
def test_export_non_retryable_status_codes(make, receiver, scope, telemetry, status):
    """Promised: one request and a failure that is told. Theirs drops the items; ours are kept for when the operator has mended it.

    302 counts as delivered there.
    """
    receiver.default = Answer(status, headers={"location": "/elsewhere"})
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    wait_for(lambda: receiver.requests)
    time.sleep(0.3)

    assert len(receiver.requests) == 1
    account = recorder.ledger()[telemetry.row]
    assert (account.delivered, account.held, account.dropped) == (0, 1, {})
    assert not recorder.flush(0.2)


def test_export_non_retryable_errors(make, receiver, scope, telemetry):
    """Promised: what the receiver calls invalid is asked once and counted as a failure, and the flush ends at once."""
    receiver.default = Answer(400)
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    begin = time.monotonic()

    assert recorder.flush(10)

    assert time.monotonic() - begin < 5
    assert len(receiver.requests) == 1
    account = recorder.ledger()[telemetry.row]
    assert (account.rejected, account.delivered, account.held) == (1, 0, 0)


def test_export_max_retries(make, receiver, scope, telemetry, in_haste):
    """Promised: tries have a bound, so no export lasts for ever. Theirs is a number, after which the items are lost; ours is the flush's time."""
    receiver.plan = [Answer(503)] * 6
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    assert recorder.flush(20)

    assert telemetry.arrived(receiver) == ["item"]
    assert len(receiver.requests) == 7


def test_export_exhausts_max_retries(make, receiver, scope, telemetry, in_haste):
    """Promised: a receiver that never takes anything ends in a failure, within the time; and the pauses grow."""
    receiver.default = Answer(503)
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    begin = time.monotonic()

    assert not recorder.flush(1.0)

    assert time.monotonic() - begin < 1.5
    assert 4 < len(receiver.requests) < 15
    assert recorder.ledger()[telemetry.row].held == 1


def test_export_retry_after_header(make, receiver, scope, telemetry, moments):
    """Promised: the receiver's word about when to come again stands above our own pauses."""
    moments.plan[:] = [Answer(429, headers={"retry-after": "1"})]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    wait_for(lambda: telemetry.arrived(receiver) == ["item"])

    first, second = moments.seen
    assert second - first > 0.95


def test_export_retry_after_header_used_as_backoff(make, receiver, scope, telemetry, moments):
    """Promised: the same in seconds that are shorter than our own pause would be."""
    moments.plan[:] = [Answer(503)] * 4 + [Answer(429, headers={"retry-after": "0.2"})]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    assert wait_for(lambda: recorder.flush(10), 20)

    assert moments.seen[5] - moments.seen[4] >= 0.2


def test_export_retry_after_header_http_date(make, receiver, scope, telemetry, moments):
    """Promised: it may be a date."""
    then = time.time() + 2
    moments.plan[:] = [Answer(503, headers={"retry-after": email.utils.formatdate(then, usegmt=True)})]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    wait_for(lambda: telemetry.arrived(receiver) == ["item"])

    assert time.time() >= int(then) - 0.05


def test_export_retry_after_http_date_in_past(make, receiver, scope, telemetry, moments):
    """Promised: a date that is over means now."""
    past = email.utils.formatdate(time.time() - 30, usegmt=True)
    moments.plan[:] = [Answer(429, headers={"retry-after": past})]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    assert wait_for(lambda: recorder.flush(5), 10)

    assert moments.seen[1] - moments.seen[0] < 2


def test_export_retry_after_malformed(make, receiver, scope, telemetry, moments):
    """Promised: a word that says nothing leaves our own pause in force."""
    moments.plan[:] = [Answer(503, headers={"retry-after": "not-a-date"})]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    assert recorder.flush(5)

    assert telemetry.arrived(receiver) == ["item"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("5", 5.0), ("  7  ", 7.0), ("-3", 0.0), ("nan", None), ("garbage", None), (None, None), ("inf", answers.RETRY_AFTER_MAX)],
)
def test_extract_retry_after_edge_cases(value, expected):
    """Promised: the same reading of what is odd; but for ever is our longest wait."""
    assert answers.retry_after(value) == expected


def test_export_retry_after_header_exhausts_timeout(make, receiver, scope, telemetry, moments):
    """Promised: nobody waits for a moment that lies behind the end of their time."""
    moments.plan[:] = [Answer(503, headers={"retry-after": "10"})]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    wait_for(lambda: moments.seen)
    begin = time.monotonic()

    assert not recorder.flush(3)

    assert time.monotonic() - begin < 1
    assert len(moments.seen) == 1
    assert recorder.ledger()[telemetry.row].held == 1


def test_export_backoff_exhausts_remaining_timeout(make, receiver, scope, telemetry, moments, monkeypatch):
    """Promised: a pause that would end too late is not begun."""
    monkeypatch.setattr(courier, "FLUSH_PAUSE", 1.0)
    moments.plan[:] = [Answer(503)] * 9
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    begin = time.monotonic()

    assert not recorder.flush(2.5)

    assert time.monotonic() - begin < 2.2


def test_export_connection_error(make, receiver, scope, telemetry):
    """Promised: a connection that breaks is tried again. Ours says besides that the items may be there twice."""
    receiver.plan = [RESET]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    assert wait_for(lambda: recorder.flush(5))

    assert set(telemetry.arrived(receiver)) == {"item"}
    assert recorder.ledger()[telemetry.row].ambiguous == len(telemetry.arrived(receiver)) - 1 == 1


def test_export_connection_errors(make, scope, telemetry):
    """Promised: where nobody listens the failure comes at once, and the items go once somebody does."""
    from tests.delivery.receiver import Receiver

    port = free_port()
    recorder = make(f"http://127.0.0.1:{port}")
    telemetry.record(recorder, scope, "item")
    begin = time.monotonic()
    assert not recorder.flush(5)
    assert time.monotonic() - begin < 2
    late = Receiver(port)
    try:
        assert wait_for(lambda: recorder.flush(5))
        assert telemetry.arrived(late) == ["item"]
        assert recorder.ledger()[telemetry.row].ambiguous == 0
    finally:
        late.close()


def test_export_timeout_decreases_per_retry(make, receiver, scope, telemetry, moments):
    """Promised: tries share one deadline. A hanging one after failures gets what is left, not a time of its own."""
    moments.plan[:] = [Answer(503), Answer(503), *[HANG] * 9]
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    begin = time.monotonic()

    assert not recorder.flush(1.5)

    assert time.monotonic() - begin < 1.5 + 0.5


def test_export_connection_error_gets_reduced_timeout(make, scope, telemetry):
    """Promised: the same after a connection that broke."""
    asked = []

    def talk(connection):
        asked.append(connection.recv(100))
        if len(asked) > 1:
            time.sleep(20)

    with raw_server(talk) as url:
        recorder = make(url)
        telemetry.record(recorder, scope, "item")
        begin = time.monotonic()
        assert not recorder.flush(1.5)
        assert time.monotonic() - begin < 1.5 + 0.5


def test_shutdown_interrupts_retry_backoff(make, receiver, scope, telemetry, monkeypatch):
    """Promised: the end waits for no pause. Ours asks once more first: the receiver may be back."""
    receiver.default = Answer(503)
    monkeypatch.setattr(lanes, "BACKOFF_MAX", 60.0)
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    for _ in range(5):
        recorder.flush(0.2)
    receiver.default = Answer()
    begin = time.monotonic()

    assert recorder.shutdown(5)

    assert time.monotonic() - begin < 1
    assert telemetry.arrived(receiver) == ["item"]


def test_shutdown_interrupts_export_retry_backoff(make, receiver, scope, telemetry):
    """Promised: nor does it wait for the pause of another thread's flush, which ends then, too, and has failed."""
    receiver.default = Answer(503)
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    results = []
    flushing = threading.Thread(target=lambda: results.append(recorder.flush(20)))
    flushing.start()
    wait_for(lambda: len(receiver.requests) > 3)
    begin = time.monotonic()

    assert recorder.shutdown(0.3) is False

    assert time.monotonic() - begin < 1
    flushing.join(30)
    assert time.monotonic() - begin < 3
    assert results == [False]


def test_export_with_shutdown(make, receiver, scope, telemetry):
    """Promised: at the end a refusal is not tried again and again. Ours is, but only within the time of the end."""
    receiver.default = Answer(503)
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    begin = time.monotonic()

    assert not recorder.shutdown(0.5)

    assert time.monotonic() - begin < 1
    asked = len(receiver.requests)
    time.sleep(1.5)
    assert len(receiver.requests) == asked


def test_export_after_shutdown(make, receiver, scope, telemetry):
    """Promised: nothing is sent after the end, and who tries is told so at once."""
    recorder = make(receiver.url)
    assert recorder.shutdown(2)
    assert telemetry.record(recorder, scope, "item") == [False]
    begin = time.monotonic()

    recorder.flush(5)

    assert time.monotonic() - begin < 1
    assert not receiver.requests


def test_shutdown_idempotent(make, receiver, scope, telemetry):
    """Promised: a second end does nothing."""
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    assert recorder.shutdown(5)
    begin = time.monotonic()

    assert recorder.shutdown(5)

    assert time.monotonic() - begin < 0.1
    assert telemetry.arrived(receiver) == ["item"]


def test_shutdown_closes_transport(make, receiver, scope, telemetry):
    """Promised: no connection outlives the end."""
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")
    assert recorder.flush(5)
    (connection,) = recorder.courier._connections.values()
    assert connection.sock is not None

    recorder.shutdown(5)

    wait_for(lambda: connection.sock is None)


def test_force_flush(make, receiver, scope, telemetry):
    """Promised: true when there was nothing to do, and true after everything was sent."""
    recorder = make(receiver.url)
    assert recorder.flush(1)
    telemetry.record(recorder, scope, "item")

    assert recorder.flush(5)

    assert telemetry.arrived(receiver) == ["item"]


def test_export_encoding_failure(make, receiver, scope, telemetry, monkeypatch):
    """Promised: an item that cannot be encoded costs itself, and nobody sees an exception."""
    monkeypatch.setattr(_guard, "strict", False)
    recorder = make(receiver.url)
    assert recorder.append(telemetry.kind, scope, None) is False
    telemetry.record(recorder, scope, "item")

    assert recorder.flush(5)

    assert telemetry.arrived(receiver) == ["item"]
    assert recorder.ledger()[telemetry.row].dropped == {"error": 1}
    assert _guard.failures.pop("chegou_otel.delivery.recorder.append") == 1


def test_retry_timeout_records_metrics(make, receiver, scope, telemetry):
    """Promised: counters tell of what could not be sent. Ours tells that it is held, not lost."""
    receiver.default = Answer(503)
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "one", "two")

    assert not recorder.flush(0.5)

    account = recorder.ledger()[telemetry.row]
    assert (account.created, account.delivered, account.held, account.ambiguous) == (2, 0, 2, 0)


def test_export_connection_error_records_metrics(make, receiver, scope, telemetry):
    """Promised: counters tell of a connection that breaks. Ours tells which items may be there twice."""
    receiver.plan = [RESET] * 2
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "one")

    assert wait_for(lambda: recorder.flush(5))

    account = recorder.ledger()[telemetry.row]
    assert (account.delivered, account.ambiguous, account.held) == (1, 1, 0)
    assert telemetry.arrived(receiver) == ["one"] * 3


@pytest.mark.parametrize("status", [200, 204])
def test_export_success_status_codes(make, receiver, scope, telemetry, status):
    """Promised: these are success."""
    receiver.default = Answer(status, accept=True)
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "item")

    assert recorder.flush(5)

    assert recorder.ledger()[telemetry.row].delivered == 1
    assert len(receiver.requests) == 1


def test_a_signal_that_hangs_leaves_the_others_their_promises(make, receiver, scope):
    """Not among theirs, for there each signal has an exporter of its own; here they share a thread."""
    receiver.default = lambda message: HANG if "resource_logs" in message.DESCRIPTOR.fields_by_name else Answer()
    recorder = make(receiver.url)
    for each in SIGNALS.values():
        each.record(recorder, scope, "item")

    assert not recorder.flush(1.5)

    assert [each.arrived(receiver) for each in SIGNALS.values()] == [["item"], [], ["item"]]
