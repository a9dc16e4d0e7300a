"""One request and its answer: TLS, names, deadlines, what an answer means."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from chegou_otel.delivery import answers
from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.endpoints import Endpoint, endpoints, parse_headers
from chegou_otel.delivery.frames import Kind, Signal
from chegou_otel.delivery.protobuf import fields, varint
from chegou_otel.delivery.transport import Transport
from tests.delivery.http2_server import h2_server, serve
from tests.delivery.items import span
from tests.delivery.receiver import Answer, Receiver, raw_server, wait_for
from tests.delivery.test_tls import Keys, context_of
from tests.redis_server import free_port

BODY = b""


def send(endpoint, body=BODY, seconds=2.0):
    return Transport(endpoint, {}).send(body, time.monotonic() + seconds)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A certificate for 127.0.0.1 and one for another name, both signed by themselves."""
    place = tmp_path_factory.mktemp("keys")
    for name, alternative in (("right", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere.example")):
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
            ]
            + ["-addext", f"subjectAltName={alternative}", "-keyout", place / f"{name}.key", "-out", place / f"{name}.pem"],
            check=True,
            capture_output=True,
        )
    return place


def tls_receiver(keys, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / f"{name}.pem", keys / f"{name}.key")
    return Receiver(tls=context)


def test_tls(make, scope, keys, monkeypatch):
    """The OTLP certificate is what counts, whatever requests or curl are told; the connection is kept."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(keys / "wrong.pem"))
    server = tls_receiver(keys, "right")
    ways = {signal: Endpoint(f"{server.url}/v1/{signal.name.lower()}", certificate=str(keys / "right.pem")) for signal in Signal}
    recorder = make(endpoints=ways)
    for number in range(3):
        recorder.append(Kind.SPAN, scope, span(f"span {number}"))
        assert recorder.flush(5)
    assert server.names() == ["span 0", "span 1", "span 2"]
    # A session ticket that comes late may cost one connection.
    assert server.connections <= 2
    server.close()


def test_a_certificate_that_is_not_there_harms_nobody(make, scope, receiver):
    """A wrong path is told as a failed delivery, not as an exception in the application."""
    way = Endpoint(receiver.url.replace("http:", "https:") + "/v1/traces", certificate="/nowhere.pem")
    recorder = make(endpoints=dict.fromkeys(Signal, way))
    assert recorder.append(Kind.SPAN, scope, span("kept"))
    assert not recorder.flush(1)
    assert recorder.ledger()["traces"].held == 1


def test_a_handshake_that_never_ends():
    with raw_server(lambda connection: time.sleep(10)) as url:
        begin = time.monotonic()
        answer = send(Endpoint(url.replace("http:", "https:")), seconds=0.5)
        assert answer.verdict is Verdict.UNSENT
        assert time.monotonic() - begin < 1


def test_an_unknown_name():
    answer = send(Endpoint("http://no-such-host.invalid:4318/v1/traces"))
    assert answer.verdict is Verdict.UNSENT


def test_refused():
    answer = send(Endpoint(f"http://127.0.0.1:{free_port()}/v1/traces"))
    assert answer.verdict is Verdict.UNSENT
    assert "refused" in answer.reason


def test_a_port_that_speaks_grpc_is_told():
    """4317 instead of 4318 is everybody's first mistake."""
    grpc = pytest.importorskip("grpc")
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        answer = send(Endpoint(f"http://127.0.0.1:{port}/v1/traces"))
    finally:
        server.stop(0)
    assert answer.verdict is Verdict.AMBIGUOUS
    assert "4318" in answer.reason
    assert answer.reason.isprintable()


def test_no_proxy_is_asked(receiver, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    assert send(Endpoint(f"{receiver.url}/v1/traces")).verdict is Verdict.DELIVERED


def test_a_connection_that_the_receiver_closed_is_not_used_again(receiver):
    """Between two batches the other side may close; that is seen before anything is sent."""
    receiver.default = Answer(headers={"connection": "close"})
    way = Transport(Endpoint(f"{receiver.url}/v1/traces"), {})
    for _ in range(3):
        assert way.send(BODY, time.monotonic() + 2).verdict is Verdict.DELIVERED
    assert receiver.connections == 3

    kept = Transport(Endpoint(f"{receiver.url}/v1/traces"), {})
    receiver.default = Answer()
    assert kept.send(BODY, time.monotonic() + 2).verdict is Verdict.DELIVERED
    port = receiver.port
    receiver.close()
    kept.connection.sock.inner.shutdown(0)  # what the other side's closing looks like from here
    again = Receiver(port=port)
    assert kept.send(BODY, time.monotonic() + 2).verdict is Verdict.DELIVERED
    again.close()


def test_an_endless_answer_is_cut(receiver):
    receiver.default = Answer(500, b"x" * 3_000_000)
    answer = send(Endpoint(f"{receiver.url}/v1/traces"))
    assert answer.verdict is Verdict.REFUSED


def test_partial_success_of_every_signal():
    """Reading the answer needs no generated code."""
    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = 70_000
    response.partial_success.error_message = "too öld"
    assert answers.partial_success(response.SerializeToString()) == (70_000, "too öld")
    assert answers.partial_success(b"") == (0, "")


@pytest.mark.parametrize("data", [b"\x00", b"\x0a\x05ab", b"\x0f\x01", b"\xff" * 12, b"\x80"])
def test_garbage_is_no_protobuf(data):
    with pytest.raises(ValueError):
        fields(data)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 1 << 40])
def test_varint(value):
    assert fields(b"\x08" + varint(value)) == [(1, value)]


@pytest.mark.parametrize("value, expected", [("3", 3), ("0", 0), ("-5", 0), ("1e9", 300), ("nan", None), ("soon", None), (None, None)])
def test_retry_after(value, expected):
    assert answers.retry_after(value) == expected


def test_retry_after_as_a_date():
    import email.utils

    assert 8 <= answers.retry_after(email.utils.formatdate(time.time() + 10, usegmt=True)) <= 10


def test_bad_request_says_why(receiver):
    receiver.default = Answer(400, b"\x08\x03\x12\x0bno trace ID")  # google.rpc.Status
    answer = send(Endpoint(f"{receiver.url}/v1/traces"))
    assert (answer.verdict, answer.reason) == (Verdict.REJECTED, "HTTP 400 Bad Request no trace ID")


# -- the environment


def test_endpoints_by_the_environment():
    found = endpoints(
        None,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318/otlp/",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:9999/x",
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20abc,x=1",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x=2",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "500",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
        },
    )
    assert found[Signal.TRACES].url == "https://collector:4318/otlp/v1/traces"
    assert found[Signal.LOGS].url == "http://logs:9999/x"
    assert found[Signal.TRACES].headers == {"authorization": "Bearer abc", "x": "2"}
    assert found[Signal.LOGS].headers["x"] == "1"
    assert [found[signal].timeout for signal in Signal] == [2.5, 2.5, 0.5]
    assert found[Signal.TRACES].compression == "none"
    assert found[Signal.TRACES].certificate == "/ca.pem"


def test_the_argument_stands_above_the_environment():
    found = endpoints(
        "http://mine:1", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:2", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://other:3"}
    )
    assert {way.url for way in found.values()} == {"http://mine:1/v1/traces", "http://mine:1/v1/logs", "http://mine:1/v1/metrics"}


def test_a_wrong_argument_raises_and_a_wrong_variable_warns(caplog):
    with pytest.raises(ValueError, match="http://host:port"):
        endpoints("localhost:4317", {})
    found = endpoints(
        None,
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317", "OTEL_EXPORTER_OTLP_TIMEOUT": "ten", "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"},
    )
    assert found[Signal.TRACES] == Endpoint("http://localhost:4318/v1/traces")
    assert "localhost:4317" in caplog.text
    assert "TIMEOUT" in caplog.text
    assert "COMPRESSION" in caplog.text


@pytest.mark.parametrize(
    "variables, urls",
    [
        ({}, ["http://localhost:4318/v1/traces", "http://localhost:4318/v1/logs", "http://localhost:4318/v1/metrics"]),
        (
            {"PROTOCOL": "http/json"},
            ["http://localhost:4318/v1/traces", "http://localhost:4318/v1/logs", "http://localhost:4318/v1/metrics"],
        ),
        ({"PROTOCOL": "grpc"}, ["http://localhost:4317"] * 3),
        ({"PROTOCOL": " GRPC "}, ["http://localhost:4317"] * 3),
        ({"LOGS_PROTOCOL": "grpc"}, ["http://localhost:4318/v1/traces", "http://localhost:4317", "http://localhost:4318/v1/metrics"]),
        ({"PROTOCOL": "grpc", "ENDPOINT": "https://collector:4317"}, ["https://collector:4317"] * 3),
        ({"PROTOCOL": "grpc", "ENDPOINT": "http://collector:4317/"}, ["http://collector:4317"] * 3),
        ({"PROTOCOL": "grpc", "ENDPOINT": "collector:4317"}, ["https://collector:4317"] * 3),
        ({"PROTOCOL": "grpc", "ENDPOINT": "collector:4317", "INSECURE": "true"}, ["http://collector:4317"] * 3),
        (
            {"PROTOCOL": "grpc", "ENDPOINT": "collector:4317", "LOGS_INSECURE": "true"},
            ["https://collector:4317", "http://collector:4317", "https://collector:4317"],
        ),
        (
            {"ENDPOINT": "http://collector:4318", "TRACES_PROTOCOL": "grpc", "TRACES_ENDPOINT": "http://collector:4317"},
            ["http://collector:4317", "http://collector:4318/v1/logs", "http://collector:4318/v1/metrics"],
        ),
        ({"PROTOCOL": "grpc", "ENDPOINT": "http://[::1]:4317"}, ["http://[::1]:4317"] * 3),
    ],
)
def test_addresses_by_protocol(variables, urls, caplog):
    found = endpoints(None, {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()})
    assert [found[signal].url for signal in Signal] == urls
    assert not caplog.text


def test_the_argument_of_setup_holds_for_grpc_too():
    found = endpoints("http://mine:1", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert {way.url for way in found.values()} == {"http://mine:1"}


def test_a_wrong_protocol_warns_once_and_falls_back(caplog):
    found = endpoints(None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/thrift", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"})
    assert [found[signal].protocol for signal in Signal] == ["http/protobuf", "grpc", "http/protobuf"]
    assert [record.getMessage() for record in caplog.records] == [
        "OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf, http/json or grpc, not 'http/thrift'; using http/protobuf"
    ]


def test_a_path_says_nothing_to_grpc(caplog):
    found = endpoints(
        None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317/v1/traces?key=secret"}
    )
    assert {way.url for way in found.values()} == {"http://collector:4317"}
    assert caplog.text.count("the path /v1/traces of a gRPC endpoint is ignored") == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_courier_imports_nothing(tmp_path, protocol, scheme):
    """What sending needs is there when the recorder is: a fork amid an import would leave a locked module."""
    code = """
        import sys
        from chegou_otel.delivery.endpoints import endpoints
        from chegou_otel.delivery.frames import Kind
        from chegou_otel.delivery.otlp import Scope
        from chegou_otel.delivery.recorder import Recorder

        recorder = Recorder(b"", spool_dir=sys.argv[1], endpoints=endpoints(sys.argv[2], {"OTEL_EXPORTER_OTLP_PROTOCOL": sys.argv[3]}))
        recorder.append(Kind.SPAN, Scope.of("x"), b"\\x12\\x03\\x2a\\x01a")
        before = set(sys.modules)
        recorder.flush(1)
        print(recorder.courier._lanes[0].last.verdict.name, *sorted(set(sys.modules) - before))
    """
    files = Keys(tmp_path)
    tls = context_of(files, "right") if scheme == "https" else None
    with ExitStack() as stack:
        if protocol == "grpc":
            url = stack.enter_context(h2_server(serve(), tls=tls))
        else:
            server = Receiver(tls=tls)
            stack.callback(server.close)
            url = server.url
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), url, protocol],
            env={**os.environ, "SSL_CERT_FILE": files.path("ca.pem")}, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert done.stdout.split() == ["DELIVERED"], done.stderr


def test_headers_cannot_smuggle_lines():
    assert parse_headers("a=1%0d%0aevil: yes,b=2,,=3,c,d e=4") == {"b": "2"}


def test_headers_and_keys_that_are_left_out_are_told_and_not_quoted(caplog):
    found = endpoints(None, {"OTEL_EXPORTER_OTLP_HEADERS": "a=secret%00,b=2,c d=secret", "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/client.key"})
    assert found[Signal.TRACES].headers == {"b": "2"}
    assert [record.getMessage() for record in caplog.records] == [
        "OTEL_EXPORTER_OTLP_HEADERS: what cannot be the name or the value of a header is left out",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY is ignored: OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, which it belongs to, is not set",
    ]


def test_log_lines_show_no_secrets():
    assert Endpoint("https://user:secret@host:4318/v1/traces?token=x").shown == "https://host:4318/v1/traces"


def test_clock_jump(make, receiver, scope, monkeypatch):
    """Deadlines are monotonic: a wall clock that jumps a day changes nothing."""
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("before"))
    assert recorder.flush(3)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    recorder.append(Kind.SPAN, scope, span("after"))
    wait_for(lambda: receiver.names() == ["before", "after"], 5)
