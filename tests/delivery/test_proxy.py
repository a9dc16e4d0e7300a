"""A proxy when somebody asked for one, and never otherwise."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import textwrap
import time

import pytest

import chegou_otel._settings as settings
from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.endpoints import Endpoint, endpoints
from chegou_otel.delivery.frames import Kind, Signal
from chegou_otel.delivery.protocols import transport_of
from chegou_otel.delivery.routes import Proxy
from tests.delivery.http2_server import GrpcReceiver, Talk
from tests.delivery.items import span
from tests.delivery.receiver import Receiver, raw_server
from tests.delivery.test_tls import Keys, context_of, credentials_of
from tests.redis_server import free_port

PROTOCOLS = ["http/protobuf", "http/json", "grpc"]


class Relay:
    """An HTTP proxy: CONNECT and absolute addresses. ``asked`` holds the heads of what came."""

    def __init__(self, connection, asked):
        self.inner = connection
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        asked.append(head.decode())
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        address = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = address.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as outer:
            if method == "CONNECT":
                connection.sendall(b"HTTP/1.1 200 Connection established\r\nx-proxy: yes\r\n\r\n")
            else:
                outer.sendall(head.replace(f"http://{address}".encode(), b"", 1) + b"\r\n\r\n" + rest)
            self._carry(outer)

    def _carry(self, outer):
        while True:
            for ready in select.select([self.inner, outer], [], [], 20)[0]:
                data = ready.recv(65536)
                if not data:
                    return
                (outer if ready is self.inner else self.inner).sendall(data)


@pytest.fixture
def proxy():
    asked = []
    with raw_server(lambda connection: Relay(connection, asked)) as url:
        yield url, asked


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"))


def send(url, protocol, proxy, **options):
    way = Endpoint(url if protocol == "grpc" else f"{url}/v1/traces", protocol=protocol, proxy=Proxy.parse(proxy), **options)
    return transport_of(Signal.TRACES, way, {}).send(b"", time.monotonic() + 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_by_tls_the_proxy_only_connects(keys, proxy, protocol):
    """What goes through it is sealed; its own credentials are not for the receiver, and the receiver's not for it."""
    url, asked = proxy
    server = GrpcReceiver(credentials_of(keys, "right")) if protocol == "grpc" else Receiver(tls=context_of(keys, "right"))
    answer = send(
        server.url,
        protocol,
        url.replace("http://", "http://us%40er:p%3Aw@"),
        certificate=keys.path("ca.pem"),
        headers={"authorization": "Bearer receiver"},
    )
    assert answer.verdict is Verdict.DELIVERED
    lines = asked[0].split("\r\n")
    assert lines[0] == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"
    assert "Proxy-Authorization: Basic dXNAZXI6cDp3" in lines
    assert "Bearer" not in asked[0]
    metadata = server.calls[0][2] if protocol == "grpc" else {key.lower(): value for key, value in server.requests[0][1].items()}
    assert metadata["authorization"] == "Bearer receiver"
    assert "proxy-authorization" not in metadata
    server.close()


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_plain_http_names_the_whole_address(proxy, receiver, protocol):
    url, asked = proxy
    assert send(receiver.url, protocol, url.replace("http://", "http://user:pw@")).verdict is Verdict.DELIVERED
    assert asked[0].startswith(f"POST {receiver.url}/v1/traces HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{receiver.port}" in asked[0].lower()
    assert "proxy-authorization: Basic dXNlcjpwdw==" in asked[0]


def test_plain_grpc_is_connected(proxy):
    """HTTP/2 cannot name a whole address to a proxy that speaks HTTP/1.1."""
    url, asked = proxy
    server = GrpcReceiver()
    assert send(server.url, "grpc", url).verdict is Verdict.DELIVERED
    assert asked[0].startswith(f"CONNECT 127.0.0.1:{server.port} ")
    server.close()


def test_what_the_receiver_says_at_once_is_not_taken_for_the_proxy_s():
    """A gRPC server may speak first, and its words may come in one piece with the proxy's."""

    def talk(connection):
        connection.recv(65536)
        server = Talk(connection)
        server.h2.initiate_connection()
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + server.h2.data_to_send())
        server.answer(server.request()[0])

    with raw_server(talk) as url:
        assert send("http://collector.example", "grpc", url).verdict is Verdict.DELIVERED


def refuses(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")


def babbles(connection):
    connection.recv(65536)
    connection.sendall(b"x" * 20_000)


def hangs_up(connection):
    connection.recv(65536)


def drips(connection):
    while True:
        connection.sendall(b"H")
        time.sleep(0.1)


@pytest.mark.parametrize(
    "talk, says",
    [
        (refuses, "407 Proxy Authentication Required"),
        (babbles, "no answer that is HTTP"),
        (hangs_up, "no answer"),
        (drips, "took too long"),
    ],
)
def test_a_proxy_that_does_not_connect_is_told(talk, says):
    with raw_server(talk) as url:
        begin = time.monotonic()
        way = Endpoint("https://collector.example", protocol="grpc", proxy=Proxy.parse(url.replace("http://", "http://u:secret@")))
        answer = transport_of(Signal.TRACES, way, {}).send(b"", begin + 0.5)
        assert time.monotonic() - begin < 1
    assert answer.verdict is Verdict.UNSENT
    assert says in answer.reason
    assert answer.reason.startswith("the proxy http://127.0.0.1:")
    assert "secret" not in answer.reason


def test_a_proxy_that_is_not_there_is_named():
    answer = send("http://collector.example", "http/protobuf", f"http://u:secret@127.0.0.1:{free_port()}")
    assert answer.verdict is Verdict.UNSENT
    assert "the proxy http://127.0.0.1:" in answer.reason
    assert "secret" not in answer.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_variables_of_other_programs_ask_for_no_proxy(make, scope, monkeypatch, proxy, protocol):
    url, asked = proxy
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GRPC_PROXY"):
        monkeypatch.setenv(name, url)
        monkeypatch.setenv(name.lower(), url)
    server = GrpcReceiver() if protocol == "grpc" else Receiver()
    recorder = make(endpoints=endpoints(server.url, {**os.environ, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}))
    recorder.append(Kind.SPAN, scope, span("straight"))
    assert recorder.flush(5)
    assert server.names() == ["straight"]
    assert not asked
    server.close()


def test_asked_for_by_variable_or_argument(caplog):
    asked = {"CHEGOU_OTEL_PROXY": "http://user:pw@one:1"}
    assert endpoints(None, asked)[Signal.LOGS].proxy == Proxy("one", 1, "Basic dXNlcjpwdw==")
    assert endpoints(None, asked, "http://two")[Signal.LOGS].proxy == Proxy("two", 3128)
    assert endpoints(None, {"CHEGOU_OTEL_PROXY": " "})[Signal.LOGS].proxy is None
    assert not caplog.text


@pytest.mark.parametrize(
    "text", ["proxy:3128", "https://secret@proxy:1", "http://secret@:1", "http://secret@proxy:x", "http://secret@proxy/path"]
)
def test_a_wrong_argument_raises_and_a_wrong_variable_warns(caplog, text):
    with pytest.raises(ValueError, match="a proxy is http://host:port") as raised:
        endpoints(None, {}, text)
    assert endpoints(None, {"CHEGOU_OTEL_PROXY": text})[Signal.LOGS].proxy is None
    assert "CHEGOU_OTEL_PROXY is ignored" in caplog.text
    assert "secret" not in caplog.text + str(raised.value)


def test_passwords_and_tokens_are_shown_nowhere():
    proxy = "http://user:secret@proxy:1"
    way = Endpoint("https://user:secret@host/v1/traces?key=secret", {"authorization": "secret"}, proxy=Proxy.parse(proxy))
    loaded, _ = settings.load({"proxy": proxy}, {})
    for shown in (repr(way), str(way), way.shown, repr(way.route), str(way.proxy), repr(way.proxy), repr(loaded)):
        assert "secret" not in shown
        assert "c2VjcmV0" not in shown
        assert "dXNlcjpz" not in shown
    with pytest.raises(ValueError, match="an OTLP endpoint is") as raised:
        Endpoint("ftp://user:secret@host?key=secret")
    assert "secret" not in str(raised.value)


def test_setup_takes_it(tmp_path, proxy, receiver):
    url, asked = proxy
    code = """
        import sys, chegou_otel
        telemetry = chegou_otel.setup("shop", endpoint=sys.argv[1], proxy=sys.argv[2])
        with telemetry.runtime.tracer("t").start_as_current_span("through"):
            pass
        assert telemetry.flush(5)
        print(telemetry)
    """
    env = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), receiver.url, url.replace("http://", "http://user:secret@")],
        env={**env, "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert receiver.names() == ["through"]
    assert len(asked) == receiver.connections
    assert "secret" not in done.stdout + done.stderr
