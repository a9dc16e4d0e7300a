"""OTLP over real sockets: what is taken, what is refused and how, and when the answer comes."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import socket
import sqlite3
import threading
import zlib
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from chegou_otel.local import server, writer
from chegou_otel.local.days import today
from tests.local.programs import ask, post, until
from tests.local.wires import PROTOBUF, Sender, gauge, order

if TYPE_CHECKING:
    from chegou_otel.local.backend import Backend
    from chegou_otel.local.store import Store

JSON = {"Content-Type": "application/json"}
RESPONSES = {"traces": ExportTraceServiceResponse, "metrics": ExportMetricsServiceResponse, "logs": ExportLogsServiceResponse}


def one_span(name: str = "work") -> Sender:
    sender = Sender()
    sender.span(name)
    return sender


def code_and_message(body: bytes) -> tuple[int, str]:
    """google.rpc.Status, read by hand: field 1 is the code, field 2 the message."""
    assert body[0] == 0x08
    assert body[2] == 0x12
    size, shift, at = 0, 0, 3
    while True:
        byte = body[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    assert len(body) == at + size
    return body[1], body[at:].decode()


@pytest.mark.parametrize("signal", RESPONSES)
def test_a_request_is_answered_with_the_response_of_its_signal(url: str, signal: str) -> None:
    sender = one_span()
    sender.log("hello")
    body = {"traces": sender.traces_body, "logs": sender.logs_body, "metrics": gauge("g", 1)}[signal]

    status, headers, answer = ask(url, "POST", f"/v1/{signal}", body, PROTOBUF)

    assert (status, headers["Content-Type"]) == (200, "application/x-protobuf")
    assert not RESPONSES[signal].FromString(answer).HasField("partial_success")


def test_json_has_ids_in_hex(url: str, store: Store) -> None:
    sender = one_span("from json")
    told = json_format.MessageToDict(sender.traces, use_integers_for_enums=True)
    span = told["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    for key in ("traceId", "spanId"):
        span[key] = base64.b64decode(span[key]).hex()
    span["fromTheFuture"] = {"deep": 1}

    status, headers, answer = ask(url, "POST", "/v1/traces", json.dumps(told).encode(), {"Content-Type": "application/json; charset=utf-8"})

    assert (status, headers["Content-Type"], answer) == (200, "application/json", b"{}")
    (found,) = store.find(sender.trace_id.hex()).spans
    assert (found.name, found.span_id, found.start) == ("from json", span["spanId"], int(span["startTimeUnixNano"]))


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)])
def test_packed_bodies(url: str, store: Store, encoding: str, pack: object) -> None:
    sender = one_span()
    post(url, "/v1/traces", pack(sender.traces_body), {**PROTOBUF, "Content-Encoding": encoding})
    assert store.find(sender.correlation_id).spans


def test_chunked_bodies(url: str, store: Store) -> None:
    sender = one_span()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    body = sender.traces_body
    connection.request("POST", "/v1/traces", iter([body[:5], body[5:]]), PROTOBUF, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert store.find(sender.correlation_id).spans


def test_a_connection_serves_many_requests(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    used = set()
    for body in (one_span().traces_body, b"garbage", one_span().traces_body):
        connection.request("POST", "/v1/traces", body, PROTOBUF)
        answer = connection.getresponse()
        answer.read()
        used.add(connection.sock.getsockname())
    connection.close()
    assert len(used) == 1


BAD_ID = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "not hex", "spanId": "00"}]}]}]}).encode()


@pytest.mark.parametrize("body", [b"garbage", b"\x0a\xff", b"<html>"])
def test_garbage_is_refused_with_a_status_in_protobuf(url: str, body: bytes) -> None:
    status, headers, answer = ask(url, "POST", "/v1/traces", body, PROTOBUF)
    assert (status, headers["Content-Type"]) == (400, "application/x-protobuf")
    code, message = code_and_message(answer)
    assert code == 3
    assert "not an OTLP traces request" in message


@pytest.mark.parametrize("body", [b"garbage", b"[]", b"3", b'{"resourceSpans": 3}', BAD_ID, b"[" * 100_000])
def test_garbage_is_refused_with_a_status_in_json(url: str, body: bytes) -> None:
    status, headers, answer = ask(url, "POST", "/v1/traces", body, JSON)
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert json.loads(answer)["code"] == 3


def test_what_is_too_large_is_refused_before_it_is_read(url: str) -> None:
    status, _, answer = ask(url, "POST", "/v1/traces", b"", {**PROTOBUF, "Content-Length": str(1 << 40)})
    assert status == 413
    assert code_and_message(answer)[0] == 8


def test_a_small_body_that_unpacks_to_a_large_one_is_refused(url: str) -> None:
    bomb = gzip.compress(bytes(server.LARGEST_BODY + 1), 9)
    assert len(bomb) < 1 << 20
    status, _, _ = ask(url, "POST", "/v1/traces", bomb, {**PROTOBUF, "Content-Encoding": "gzip"})
    assert status == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({}, 415),
        ({**PROTOBUF, "Content-Encoding": "br"}, 415),
        ({**PROTOBUF, "Content-Encoding": "gzip"}, 400),
        ({**PROTOBUF, "Host": "evil.example"}, 403),
    ],
)
def test_other_refusals(url: str, headers: dict[str, str], status: int) -> None:
    assert ask(url, "POST", "/v1/traces", one_span().traces_body, headers)[0] == status


@pytest.mark.parametrize("host", ["localhost:4318", "127.0.0.1", "[::1]:1", "hub.localhost", "10.0.0.7:4318"])
def test_names_of_this_machine(url: str, host: str) -> None:
    assert ask(url, "GET", "/healthz", headers={"Host": host})[0] == 200


def test_only_post(url: str) -> None:
    status, headers, _ = ask(url, "GET", "/v1/traces")
    assert (status, headers["Allow"]) == (405, "POST")


def test_a_truncated_body_is_refused(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: x.localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\nabc"
        )
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")


# --- when the answer comes ------------------------------------------------------------------------------------------------------------


class Held:
    """Another process's long transaction: our writer has to wait."""

    def __init__(self, store: Store) -> None:
        self.connection = sqlite3.connect(store.days.path(today()), isolation_level=None)
        self.connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self.connection.execute("ROLLBACK")
        self.connection.close()


def test_the_answer_comes_after_the_commit(url: str, store: Store) -> None:
    held, answered = Held(store), threading.Event()
    sender = one_span()
    thread = threading.Thread(target=lambda: (post(url, "/v1/traces", sender.traces_body), answered.set()))
    thread.start()

    assert not answered.wait(0.5)
    assert not store.find(sender.correlation_id)
    held.release()

    assert answered.wait(10)
    assert store.find(sender.correlation_id).spans
    thread.join()


def test_when_too_much_is_waiting_senders_are_asked_to_come_back(
    url: str, store: Store, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WAITING_BYTES", 10)
    held, first = Held(store), one_span()
    thread = threading.Thread(target=lambda: post(url, "/v1/traces", first.traces_body))
    thread.start()
    until(lambda: backend.writer._waiting)

    status, headers, answer = ask(url, "POST", "/v1/traces", one_span().traces_body, PROTOBUF)
    held.release()
    thread.join(10)

    assert (status, headers["Retry-After"]) == (503, "1")
    assert code_and_message(answer)[0] == 14
    assert store.find(first.correlation_id).spans
    post(url, "/v1/traces", one_span().traces_body)


def test_one_bad_request_does_not_take_others_along(url: str, store: Store) -> None:
    """The disk refuses one of the requests that would be committed together."""
    with sqlite3.connect(store.days.path(today())) as connection:
        connection.execute("CREATE TRIGGER t BEFORE INSERT ON span WHEN NEW.name = 'poison' BEGIN SELECT RAISE(ABORT, 'poison'); END")
    connection.close()
    held, senders, statuses = Held(store), [one_span(name) for name in ("a", "poison", "b", "c")], {}

    def work(number: int) -> None:
        statuses[number] = ask(url, "POST", "/v1/traces", senders[number].traces_body, PROTOBUF)[0]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert not threads[0].join(0.3)
    held.release()
    for thread in threads:
        thread.join(20)

    assert statuses == {0: 200, 1: 503, 2: 200, 3: 200}
    assert [bool(store.find(sender.correlation_id)) for sender in senders] == [True, False, True, True]


def test_many_senders_at_once_lose_nothing(url: str, store: Store) -> None:
    sent = [order() for _ in range(24)]

    def work(part: list[object]) -> None:
        for each in part:
            for path, body in each.bodies:
                post(url, path, body)

    threads = [threading.Thread(target=work, args=(sent[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in sent:
        records = store.find(each.correlation_id)
        assert (len(records.spans), len(records.logs)) == (11, 3)


# --- gRPC -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def export(backend: Backend) -> object:
    backend.start_grpc(0)
    with grpc.insecure_channel(backend.grpc.address) as channel:
        yield channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export", response_deserializer=ExportTraceServiceResponse.FromString
        )


def test_grpc(export: object, store: Store) -> None:
    sender = one_span("by grpc")
    export(sender.traces_body, timeout=10, compression=grpc.Compression.Gzip)
    assert [span.name for span in store.find(sender.correlation_id).spans] == ["by grpc"]


def test_grpc_refuses_garbage(export: object) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        export(b"garbage", timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_asks_to_come_back(export: object, backend: Backend) -> None:
    backend.writer.stop(5)
    with pytest.raises(grpc.RpcError) as caught:
        export(ExportTraceServiceRequest().SerializeToString(), timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
