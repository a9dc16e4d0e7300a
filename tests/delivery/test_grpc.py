"""OTLP/gRPC against a real gRPC server, and against servers that break off, hang or talk nonsense at every point."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from chegou_otel.delivery import protocols
from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.endpoints import Endpoint, endpoints
from chegou_otel.delivery.frames import Kind, Signal
from chegou_otel.delivery.grpc import GrpcTransport, retry_info
from chegou_otel.delivery.protobuf import field, varint
from chegou_otel.local.backend import Backend, Options
from chegou_otel.local.store import Store
from tests.delivery.http2_server import GrpcReceiver, h2_server, serve, unpacked
from tests.delivery.items import log, metric, span
from tests.delivery.receiver import Receiver, raw_server, wait_for

GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


def way(url, **options):
    return Endpoint(url, protocol="grpc", **options)


def transport(url, **options):
    return GrpcTransport(Signal.TRACES, way(url, **options), {})


def send(url, body=b"", seconds=2.0, **options):
    return transport(url, **options).send(body, time.monotonic() + seconds)


def request(*spans):
    """An export request's bytes."""
    return field(b"\x0a", field(b"\x12", b"".join(spans)))


@pytest.fixture
def server():
    made = GrpcReceiver()
    yield made
    made.close()


def retry_details(seconds, nanos=0):
    """``google.rpc.Status`` with a ``RetryInfo``, as ``grpc-status-details-bin`` holds it."""
    delay = b"\x08" + varint(seconds) + (b"\x10" + varint(nanos) if nanos else b"")
    other = field(b"\x0a", b"type.googleapis.com/google.rpc.ErrorInfo") + field(b"\x12", b"\x0a\x01x")
    info = field(b"\x0a", b"type.googleapis.com/google.rpc.RetryInfo") + field(b"\x12", field(b"\x0a", delay))
    return b"\x08\x08" + field(b"\x1a", other) + field(b"\x1a", info)


# -- a real gRPC server


def test_all_signals_on_one_connection(make, scope, server):
    recorder = make(endpoints=endpoints(server.url, {**GRPC, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc,Host=evil,te=gzip"}))
    for number in range(3):
        recorder.append(Kind.SPAN, scope, span(f"span {number}"))
        recorder.append(Kind.LOG, scope, log(f"log {number}"))
        recorder.append(Kind.METRIC, scope, metric(f"metric {number}"))
        assert recorder.flush(5)

    assert server.names() == ["span 0", "span 1", "span 2"]
    assert [each.body.string_value for each, _, _ in server.logs] == ["log 0", "log 1", "log 2"]
    assert [each.name for each, _, _ in server.metrics] == ["metric 0", "metric 1", "metric 2"]
    assert len({peer for _, peer, _, _ in server.calls}) == 1
    metadata = server.calls[0][2]
    assert metadata["authorization"] == "Bearer abc"
    assert metadata["user-agent"].startswith("chegou-otel/")
    assert recorder.ledger()["traces"].delivered == 3


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_large_body_waits_for_the_server_s_room(server, compression):
    """Bodies above 64 KiB need the server's leave to go on. (A real server gives a lot of it at once.)"""
    filler = os.urandom(400_000).hex()
    big = request(span("big"), field(b"\x12", b"\x2a" + varint(len(filler)) + filler.encode()))

    answer = send(server.url, big, 10, compression=compression)

    assert answer.verdict is Verdict.DELIVERED
    assert server.names()[0] == "big"
    assert server.calls[0][3] == len(big)


def test_a_large_body_in_small_steps():
    bodies = []

    def talk(connection):
        connection.greet()
        stream, _, body = connection.request()
        bodies.append(unpacked(body))
        connection.answer(stream)

    body = os.urandom(400_000)
    with h2_server(talk) as url:
        assert send(url, body, 10).verdict is Verdict.DELIVERED
    assert bodies == [body]


@pytest.mark.parametrize(
    "code, verdict",
    [
        ("CANCELLED", Verdict.AMBIGUOUS),
        ("UNKNOWN", Verdict.AMBIGUOUS),
        ("INVALID_ARGUMENT", Verdict.REJECTED),
        ("DEADLINE_EXCEEDED", Verdict.AMBIGUOUS),
        ("NOT_FOUND", Verdict.REFUSED),
        ("PERMISSION_DENIED", Verdict.REFUSED),
        ("RESOURCE_EXHAUSTED", Verdict.REFUSED),
        ("FAILED_PRECONDITION", Verdict.REFUSED),
        ("ABORTED", Verdict.REFUSED),
        ("OUT_OF_RANGE", Verdict.REFUSED),
        ("UNIMPLEMENTED", Verdict.REFUSED),
        ("INTERNAL", Verdict.AMBIGUOUS),
        ("UNAVAILABLE", Verdict.REFUSED),
        ("DATA_LOSS", Verdict.AMBIGUOUS),
        ("UNAUTHENTICATED", Verdict.REFUSED),
    ],
)
def test_a_status_is_a_verdict(server, code, verdict):
    kept = transport(server.url)
    server.plan = [lambda context: context.abort(grpc.StatusCode[code], "não é\nassim")]

    answer = kept.send(b"", time.monotonic() + 2)

    assert (answer.verdict, answer.reason, answer.retry_after) == (verdict, f"gRPC {code} não é assim", None)
    # A whole answer keeps the connection, whatever it says.
    assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
    assert len({peer for _, peer, _, _ in server.calls}) == 1


@pytest.mark.parametrize("code, expected", [("RESOURCE_EXHAUSTED", 7.5), ("UNAVAILABLE", 7.5), ("PERMISSION_DENIED", None)])
def test_retry_info_says_when_to_come_again(server, code, expected):
    def refuse(context):
        context.set_trailing_metadata((("grpc-status-details-bin", retry_details(7, 500_000_000)),))
        context.abort(grpc.StatusCode[code], "later")

    server.plan = [refuse]
    answer = send(server.url)

    assert (answer.verdict, answer.retry_after) == (Verdict.REFUSED, expected)


@pytest.mark.parametrize(
    "value, expected",
    [
        (base64.b64encode(retry_details(3)).decode().rstrip("="), 3.0),
        (base64.b64encode(retry_details(1 << 62)).decode(), 300.0),
        (base64.b64encode(retry_details(0)).decode(), None),
        ("", None),
        ("!!", None),
        (base64.b64encode(b"\x1a\xff").decode(), None),
        (base64.b64encode(field(b"\x1a", b"\x08\x01\x10\x02")).decode(), None),
    ],
)
def test_retry_info_is_read_without_generated_code(value, expected):
    assert retry_info(value) == expected


def test_what_is_too_large_is_halved_until_it_fits(make, scope):
    server = GrpcReceiver(**{"grpc.max_receive_message_length": 20_000})
    recorder = make(endpoints=endpoints(server.url, GRPC))
    for number in range(40):
        recorder.append(Kind.SPAN, scope, span(f"span {number}", 2000))
    assert recorder.flush(10)

    assert sorted(server.names()) == sorted(f"span {number}" for number in range(40))
    assert recorder.ledger()["traces"].rejected == 0
    server.close()


def test_a_culprit_is_found_and_the_others_are_delivered(make, scope, server):
    """INVALID_ARGUMENT is HTTP's 400."""

    def judge(message, context):
        if b"poison" in message.SerializeToString():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "poison")

    server.judge = judge
    recorder = make(endpoints=endpoints(server.url, GRPC))
    for name in ("a", "b", "poison", "c", "d"):
        recorder.append(Kind.SPAN, scope, span(name))
    assert recorder.flush(10)

    assert sorted(server.names()) == ["a", "b", "c", "d"]
    assert recorder.ledger()["traces"].rejected == 1


def test_a_partial_success_is_read(server):
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 2
    response.partial_success.error_message = "too old"
    server.plan = [lambda _: response.SerializeToString()]

    answer = send(server.url)

    assert (answer.verdict, answer.rejected, answer.reason) == (Verdict.DELIVERED, 2, "too old")


# -- servers that misbehave


@pytest.mark.parametrize(
    "answer, verdict, reason",
    [
        ({"status": None}, Verdict.AMBIGUOUS, "without a gRPC status"),
        ({"status": None, "body": b""}, Verdict.AMBIGUOUS, "without a gRPC status"),
        ({"status": "x"}, Verdict.AMBIGUOUS, "no number"),
        ({"status": "99"}, Verdict.AMBIGUOUS, "UNKNOWN"),
        ({"status": None, "kind": "text/html", "body": b"<html>log in</html>"}, Verdict.AMBIGUOUS, "text/html"),
        ({"status": None, "kind": None, "body": b"?"}, Verdict.AMBIGUOUS, "no content type"),
        ({"status": None, "http": "502", "kind": "text/html"}, Verdict.REFUSED, "HTTP 502"),
        ({"status": None, "http": "302", "kind": None, "body": b""}, Verdict.REFUSED, "redirects are not followed"),
        ({"status": None, "http": "413", "kind": None}, Verdict.TOO_LARGE, "413"),
        ({"body": b"\0\0\0\0\x05\x0a\xff"}, Verdict.AMBIGUOUS, "no OTLP"),
        ({"body": b"\0\0\0\0\x02\x0a\xff"}, Verdict.AMBIGUOUS, "no OTLP"),
        ({"body": b"\1\0\0\0\x03abc"}, Verdict.AMBIGUOUS, "no OTLP"),
        ({"body": b"\1\0\0\0\x03abc", "headers": [("grpc-encoding", "gzip")]}, Verdict.AMBIGUOUS, "no OTLP"),
        ({"body": b""}, Verdict.AMBIGUOUS, "no OTLP"),
        ({"kind": "application/grpc+proto"}, Verdict.DELIVERED, ""),
    ],
)
def test_answers_that_are_none(answer, verdict, reason):
    with h2_server(serve(**answer)) as url:
        found = send(url)
    assert found.verdict is verdict
    assert reason in found.reason
    assert found.reason.isprintable()


def test_an_endless_answer_is_cut():
    def talk(connection):
        connection.greet()
        stream, _, _ = connection.request()
        connection.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        while True:
            while room := connection.h2.local_flow_control_window(stream):
                connection.h2.send_data(stream, b"x" * min(room, 16_384))
            connection.flush()
            data = connection.sock.recv(65536)
            if not data:
                return
            connection.h2.receive_data(data)

    with h2_server(talk) as url:
        answer = send(url)
    assert (answer.verdict, answer.reason) == (Verdict.AMBIGUOUS, "OSError: the answer is too long")


def hang_at_once(connection):
    time.sleep(20)


def hang_after_settings(connection):
    connection.greet()
    connection.request()
    time.sleep(20)


def hang_without_room(connection):
    connection.greet()
    connection.request(room=False)
    time.sleep(20)


def hang_amid_the_answer(connection):
    connection.greet()
    stream, _, _ = connection.request()
    connection.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    connection.flush()
    time.sleep(20)


def drip_the_answer(connection):
    connection.greet()
    stream, _, _ = connection.request()
    connection.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    connection.flush()
    while True:
        connection.h2.send_data(stream, b"\0")
        connection.flush()
        time.sleep(0.05)


def drip_the_settings(connection):
    for byte in b"\0\0\x06\4\0\0\0\0\0" + b"\0" * 6:
        connection.sock.sendall(bytes([byte]))
        time.sleep(0.1)


@pytest.mark.parametrize(
    "talk, verdict",
    [
        (hang_at_once, Verdict.UNSENT),
        (drip_the_settings, Verdict.UNSENT),
        (hang_after_settings, Verdict.AMBIGUOUS),
        (hang_without_room, Verdict.AMBIGUOUS),
        (hang_amid_the_answer, Verdict.AMBIGUOUS),
        (drip_the_answer, Verdict.AMBIGUOUS),
    ],
)
def test_the_deadline_is_that_of_the_whole_call(talk, verdict):
    with h2_server(talk) as url:
        begin = time.monotonic()
        answer = send(url, os.urandom(300_000), 0.5)
        assert time.monotonic() - begin < 1
    assert answer.verdict is verdict


def test_a_port_that_nobody_answers_at():
    """A queue of connections that is full: connecting hangs."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        begin = time.monotonic()
        answer = send(f"http://127.0.0.1:{address[1]}", seconds=0.5)
        assert time.monotonic() - begin < 1
        assert answer.verdict is Verdict.UNSENT
        for each in waiting:
            each.close()


def test_a_handshake_that_never_ends():
    with raw_server(lambda connection: time.sleep(10)) as url:
        begin = time.monotonic()
        assert send(url.replace("http:", "https:"), seconds=0.5).verdict is Verdict.UNSENT
        assert time.monotonic() - begin < 1


def test_a_port_that_speaks_http_1_is_told(receiver):
    """4318 instead of 4317."""
    answer = send(receiver.url)
    assert answer.verdict is Verdict.UNSENT
    assert "4317" in answer.reason
    assert not receiver.requests


def garbage(connection):
    connection.greet()
    connection.request()
    connection.sock.sendall(b"\0\0\x04\x01\x04\0\0\0\x01\xff\xff\xff\xff")  # headers that no table knows


def no_text(connection):
    connection.greet()
    stream, _, _ = connection.request()
    connection.h2.send_headers(stream, [(b":status", b"200"), (b"grpc-message", b"\xff\xfe")])
    connection.flush()
    connection.request()


def long_frame(connection):
    connection.greet()
    connection.request()
    connection.sock.sendall(b"\xff\xff\xff\x00\0\0\0\0\x01")


def close_after_the_request(connection):
    connection.greet()
    connection.request()


@pytest.mark.parametrize("talk", [garbage, no_text, long_frame, close_after_the_request])
def test_what_breaks_off_after_the_request_is_ambiguous(talk):
    with h2_server(talk) as url:
        kept = transport(url)
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.AMBIGUOUS
        assert kept.connection.sock is None


def test_a_request_that_the_server_gave_up():
    def talk(connection):
        connection.greet()
        stream, _, _ = connection.request()
        connection.h2.reset_stream(stream, 11)  # ENHANCE_YOUR_CALM
        connection.flush()
        connection.request()

    with h2_server(talk) as url:
        answer = send(url)
    assert answer.verdict is Verdict.AMBIGUOUS
    assert "error 11" in answer.reason


def test_an_answer_before_the_body_was_sent():
    """Who will not have the body says so while it is on its way."""

    def talk(connection):
        connection.greet()
        stream, _, _ = connection.request(whole=False, room=False)
        connection.answer(stream, body=b"", status="8", trailers=[("grpc-message", "larger than max (9 vs. 4)")])
        while asked := connection.request():
            given_up.extend(connection.given_up)
            connection.answer(asked[0])

    given_up = []
    with h2_server(talk) as url:
        kept = transport(url, compression="none")
        assert kept.send(os.urandom(500_000), time.monotonic() + 2).verdict is Verdict.TOO_LARGE
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
    assert given_up == [1]


def test_a_refused_stream_cannot_have_arrived():
    def talk(connection):
        connection.greet()
        while asked := connection.request():
            connection.h2.reset_stream(asked[0], 7)
            connection.flush()

    with h2_server(talk) as url:
        assert send(url).verdict is Verdict.UNSENT


def test_headers_that_cannot_be_sent_are_told(server):
    answer = send(server.url, headers={"x": "secret\udc80"})
    assert answer.verdict is Verdict.UNSENT
    assert "OTEL_EXPORTER_OTLP_HEADERS" in answer.reason
    assert "secret" not in answer.reason


# -- farewells


def counting(*talks):
    """One talk per connection, the last one for all further ones; and how many there were."""
    seen = []

    def talk(connection):
        seen.append(connection)
        talks[min(len(seen), len(talks)) - 1](connection)

    return talk, seen


def test_a_farewell_between_two_requests():
    def leaving(connection):
        connection.greet()
        stream, _, _ = connection.request()
        connection.answer(stream)
        connection.farewell(stream)
        connection.request()

    talk, seen = counting(leaving, serve())
    with h2_server(talk) as url:
        kept = transport(url)
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
        wait_for(lambda: kept.connection._last is not None or kept.connection.sock.stale(), what="the farewell")
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
        assert len(seen) == 2


def test_a_farewell_amid_a_request_that_is_still_answered():
    """What servers do that are about to stop: they finish what they began."""

    def leaving(connection):
        connection.greet()
        stream, _, _ = connection.request()
        connection.farewell((1 << 31) - 1)
        connection.farewell(stream)
        time.sleep(0.05)
        connection.answer(stream)

    talk, seen = counting(leaving, serve())
    with h2_server(talk) as url:
        kept = transport(url)
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
        assert len(seen) == 2


def test_a_farewell_that_crosses_the_request():
    """The server says that it did not look at it: it goes out again at once, and is not ambiguous."""

    def leaving(connection):
        connection.greet()
        stream, _, _ = connection.request()
        connection.answer(stream)
        connection.request()
        connection.farewell(stream)

    talk, seen = counting(leaving, serve())
    with h2_server(talk) as url:
        kept = transport(url)
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
        assert len(seen) == 2


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_idle_connection_is_left_when_the_server_wants_to_go(make, scope, receiver, protocol):
    """A server that stops in order may wait for its clients to leave."""
    left = threading.Event()

    def leaving(connection):
        connection.greet()
        stream, _, _ = connection.request()
        connection.answer(stream)
        connection.farewell(stream)
        while connection.request():
            pass
        left.set()

    with h2_server(leaving) as url:
        recorder = make(endpoints=endpoints(url if protocol == "grpc" else receiver.url, {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}))
        recorder.append(Kind.SPAN, scope, span("only"))
        assert recorder.flush(5)
        (connection,) = recorder.courier._connections.values()
        if protocol == "grpc":
            assert left.wait(5)
        else:
            connection.sock.inner.shutdown(socket.SHUT_RD)  # what the other side's closing looks like from here
        wait_for(lambda: connection.sock is None, 5, "the end of the connection")


def test_a_recorder_that_is_shut_down_keeps_no_connection(make, scope):
    left = threading.Event()

    def talk(connection):
        serve()(connection)
        left.set()

    with h2_server(talk) as url:
        recorder = make(endpoints=endpoints(url, GRPC))
        recorder.append(Kind.SPAN, scope, span("only"))
        assert recorder.shutdown(5)
        assert left.wait(5)


def test_a_connection_that_was_closed_meanwhile_is_not_used():
    def once(connection):
        connection.greet()
        connection.answer(connection.request()[0])

    talk, seen = counting(once)
    with h2_server(talk) as url:
        kept = transport(url)
        for number in range(3):
            assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
            wait_for(kept.connection.sock.stale, what="the server's closing")
        assert len(seen) == 3


def test_pings_of_an_idle_connection_are_answered_with_the_next_request():
    acked = []

    def talk(connection):
        connection.greet()
        connection.answer(connection.request()[0])
        connection.h2.ping(b"12345678")
        connection.flush()
        receive = connection.h2.receive_data
        connection.h2.receive_data = lambda data: [acked.append(type(event).__name__) or event for event in receive(data)]
        connection.answer(connection.request()[0])

    with h2_server(talk) as url:
        kept = transport(url)
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
        wait_for(lambda: acked or kept.connection.sock.stale(), what="the ping")
        assert kept.send(b"", time.monotonic() + 2).verdict is Verdict.DELIVERED
    assert "PingAckReceived" in acked


def test_a_compressed_answer_is_read():
    packed = __import__("gzip").compress(field(b"\x0a", b"\x08\x03\x12\x03old"))
    body = b"\1" + len(packed).to_bytes(4) + packed
    with h2_server(serve(body=body, headers=[("grpc-encoding", "gzip")])) as url:
        answer = send(url)
    assert (answer.verdict, answer.rejected, answer.reason) == (Verdict.DELIVERED, 3, "old")


# -- forks, and what is missing


def test_a_fork_amid_a_call(tmp_path):
    """The child has its own connection; the parent's call is finished as if nothing had happened. Each item arrives once."""
    asked, go_on = threading.Event(), threading.Event()
    names, connections = [], []

    def talk(connection):
        connections.append(connection.greet())
        while request := connection.request():
            stream, headers, body = request
            if headers[":path"].endswith("TraceService/Export"):
                message = ExportTraceServiceRequest.FromString(unpacked(body))
                found = [each.name for r in message.resource_spans for s in r.scope_spans for each in s.spans]
                if found == ["parent"]:
                    asked.set()
                    go_on.wait(20)
                names.extend(found)
            connection.answer(stream)

    code = """
        import os, sys
        from chegou_otel.delivery.endpoints import endpoints
        from chegou_otel.delivery.frames import Kind
        from chegou_otel.delivery.otlp import Scope
        from chegou_otel.delivery.recorder import Recorder
        from tests.delivery.items import RESOURCE, span

        def sockets():
            found = set()
            for each in os.listdir("/proc/self/fd"):
                try:
                    found.add(os.readlink(f"/proc/self/fd/{each}"))
                except OSError:
                    pass
            return {each for each in found if each.startswith("socket:")}

        recorder = Recorder(RESOURCE, spool_dir=sys.argv[1], endpoints=endpoints(sys.argv[2], {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}))
        scope = Scope.of("fork")
        recorder.append(Kind.SPAN, scope, span("warm"))
        assert recorder.flush(5)
        recorder.append(Kind.SPAN, scope, span("parent"))
        recorder.courier.wake()
        print("recorded", flush=True)
        sys.stdin.readline()
        mine = sockets()
        assert mine
        pid = os.fork()
        recorder.append(Kind.SPAN, scope, span("child" if not pid else "after"))
        if not pid:
            code = 0 if recorder.flush(5) and not mine & sockets() else 1
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print("child is gone", flush=True)
        sys.stdin.readline()
        assert recorder.flush(5)
        account = recorder.ledger()["traces"]
        print(account.created, account.delivered, account.ambiguous, account.held, flush=True)
        recorder.shutdown(1)
    """
    with h2_server(talk) as url:
        app = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert app.stdout.readline() == "recorded\n"
        assert asked.wait(20)
        app.stdin.write("fork\n")
        app.stdin.flush()
        assert app.stdout.readline() == "child is gone\n"
        go_on.set()
        told, _ = app.communicate("go on\n", 30)
    assert app.returncode == 0
    assert sorted(names) == ["after", "child", "parent", "warm"]
    assert told.split() == ["3", "3", "0", "0"]
    assert len(connections) == 2


def test_without_the_extra_it_is_said_and_kept(make, scope, server, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "h2", None)
    recorder = make(endpoints=endpoints(server.url, GRPC))
    assert "pip install 'chegou-otel[grpc]'" in caplog.text
    recorder.append(Kind.SPAN, scope, span("kept"))
    assert not recorder.flush(1)
    assert recorder.ledger()["traces"].held == 1
    assert not server.calls
    assert protocols.NO_H2 in caplog.text

    recorder.shutdown(0.1)
    monkeypatch.undo()
    later = make(endpoints=endpoints(server.url, GRPC))
    later.start()
    wait_for(lambda: server.names() == ["kept"], what="the next process's delivery")


def test_each_signal_its_own_protocol(make, scope, server, receiver):
    """And its own port: gRPC and HTTP at the same time."""
    other = Receiver()
    ways = endpoints(
        None,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": server.url,
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{other.url}/v1/logs",
        },
    )
    recorder = make(endpoints=ways)
    recorder.append(Kind.SPAN, scope, span("by gRPC"))
    recorder.append(Kind.LOG, scope, log("in JSON"))
    recorder.append(Kind.METRIC, scope, metric("in protobuf"))
    assert recorder.flush(5)

    assert server.names() == ["by gRPC"]
    assert [each.body.string_value for each, _, _ in other.logs] == ["in JSON"]
    assert other.requests[0][1]["content-type"] == "application/json"
    assert [each.name for each, _, _ in receiver.metrics] == ["in protobuf"]
    other.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/json"])
def test_our_own_receiver_takes_it(make, scope, tmp_path, protocol):
    backend = Backend(Options(tmp_path / "data", http_port=0))
    backend.start()
    backend.start_grpc(0)
    try:
        url = f"http://{backend.grpc.address}" if protocol == "grpc" else backend.http.url
        recorder = make(endpoints=endpoints(url, {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}))
        recorder.append(Kind.SPAN, scope, span("stored"))
        recorder.append(Kind.METRIC, scope, metric("orders"))
        assert recorder.flush(10)
        store = Store(backend.options.folder)
        assert [entry.name for entry in store.recent()] == ["stored"]
        assert [each["name"] for each in store.metrics()] == ["orders"]
        assert recorder.ledger()["traces"].delivered == 1
    finally:
        backend.stop()
