"""What OpenTelemetry promises of its OTLP exporters over gRPC, by the names of its tests, against a real gRPC server."""

from __future__ import annotations

import threading
import time

import grpc
import pytest

from chegou_otel.delivery.endpoints import endpoints
from tests.delivery.http2_server import GrpcReceiver
from tests.delivery.receiver import wait_for
from tests.delivery.test_grpc import GRPC, retry_details


@pytest.fixture
def server():
    made = GrpcReceiver()
    yield made
    made.close()


@pytest.fixture
def recorder(make, server):
    return make(endpoints=endpoints(server.url, GRPC))


def refuse(code, details=None, wait=0.0):
    def answer(context):
        time.sleep(wait)
        if details is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(code, "no")

    return answer


def test_shutdown(recorder, scope, server, telemetry):
    """Promised: after the end nothing is sent, and it is told."""
    telemetry.record(recorder, scope, "item")
    assert recorder.shutdown(5)
    assert telemetry.arrived(server) == ["item"]

    assert telemetry.record(recorder, scope, "late") == [False]

    assert recorder.ledger()[telemetry.row].dropped == {"closed": 1}
    assert len(server.calls) == 1


def test_shutdown_interrupts_export_retry_backoff(recorder, scope, server, telemetry):
    """Promised: the end waits for no pause, and a flush that it interrupts has failed."""
    server.plan = [refuse(grpc.StatusCode.UNAVAILABLE)] * 99
    telemetry.record(recorder, scope, "item")
    results = []
    flushing = threading.Thread(target=lambda: results.append(recorder.flush(20)))
    flushing.start()
    wait_for(lambda: len(server.calls) > 3)
    begin = time.monotonic()

    assert recorder.shutdown(0.3) is False

    assert time.monotonic() - begin < 1
    flushing.join(30)
    assert time.monotonic() - begin < 3
    assert results == [False]


def test_export_over_closed_grpc_channel(recorder, scope, server, telemetry):
    """Promised: a channel that was closed carries nothing more. Ours is gone with the end."""
    telemetry.record(recorder, scope, "item")
    assert recorder.flush(5)
    connections = list(recorder.courier._connections.values())
    recorder.shutdown(5)

    wait_for(lambda: all(each.sock is None for each in connections))
    assert recorder.flush(1) is False
    assert len(server.calls) == 1


def test_retry_info_is_respected(recorder, scope, server, telemetry):
    """Promised: the server's word about when to come again is what is waited, each time."""
    came = []

    def answer(context):
        came.append(time.monotonic())
        if len(came) < 4:
            refuse(grpc.StatusCode.UNAVAILABLE, retry_details(0, 300_000_000))(context)
        return b""

    server.plan = [answer] * 4
    telemetry.record(recorder, scope, "item")

    wait_for(lambda: recorder.flush(1), 20)

    assert telemetry.arrived(server)[-1] == "item"
    assert min(after - before for before, after in zip(came, came[1:], strict=False)) > 0.29


def test_retry_not_made_if_would_exceed_timeout(recorder, scope, server, telemetry):
    """Promised: a try that could only come too late is not waited for."""
    server.plan = [refuse(grpc.StatusCode.UNAVAILABLE, retry_details(10))] * 9
    telemetry.record(recorder, scope, "item")
    begin = time.monotonic()

    assert not recorder.flush(4)

    assert time.monotonic() - begin < 1.5
    assert recorder.ledger()[telemetry.row].held == 1


def test_timeout_set_correctly(recorder, scope, server, telemetry):
    """Promised: the time is that of the whole, tries and pauses together."""
    server.plan = [refuse(grpc.StatusCode.UNAVAILABLE, wait=0.25), *[refuse(grpc.StatusCode.UNAVAILABLE, wait=3)] * 9]
    telemetry.record(recorder, scope, "item")
    begin = time.monotonic()

    assert not recorder.flush(1.4)

    assert time.monotonic() - begin < 1.4 + 0.5


def test_permanent_failure(recorder, scope, server, telemetry, caplog):
    """Promised: what is for the operator to mend is asked once and said once. Theirs drops the items, ours keeps them."""
    server.plan = [refuse(grpc.StatusCode.ALREADY_EXISTS)] * 9
    telemetry.record(recorder, scope, "item")
    wait_for(lambda: "ALREADY_EXISTS" in caplog.text)

    assert len(server.calls) == 1
    account = recorder.ledger()[telemetry.row]
    assert (account.held, account.dropped, account.rejected) == (1, {}, 0)


def test_unavailable_reconnects(make, scope, telemetry):
    """Promised: a server that went and came back is found again."""
    first = GrpcReceiver()
    recorder = make(endpoints=endpoints(first.url, GRPC))
    telemetry.record(recorder, scope, "before")
    assert recorder.flush(5)
    first.close()
    telemetry.record(recorder, scope, "between")
    assert not recorder.flush(0.5)
    second = GrpcReceiver(port=first.port)
    try:
        assert wait_for(lambda: recorder.flush(5), 20)
        assert telemetry.arrived(first) + telemetry.arrived(second) == ["before", "between"]
    finally:
        second.close()


@pytest.mark.parametrize("code", ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS", "INTERNAL"])
def test_retryable_error_codes_initialization(recorder, scope, server, code):
    """Promised: these are tried again. Theirs are a list to be set; here every code is but what the server calls invalid."""
    from tests.delivery.upstream.conftest import SIGNALS

    server.plan = [refuse(grpc.StatusCode[code])]
    SIGNALS["spans"].record(recorder, scope, "item")

    assert recorder.flush(10)

    assert len(server.calls) == 2
    assert server.names() == ["item"]
