"""TLS with real certificates, by HTTP/1.1 and by gRPC: what is accepted, what is refused, and what the line says that mends it."""

from __future__ import annotations

import datetime as dt
import os
import ssl
import subprocess
import sys
import textwrap
import time

import grpc
import pytest
import trustme

from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.endpoints import Endpoint
from chegou_otel.delivery.frames import Kind, Signal
from chegou_otel.delivery.protocols import transport_of
from tests.delivery.http2_server import GrpcReceiver
from tests.delivery.items import span
from tests.delivery.receiver import Answer, Receiver

PROTOCOLS = ["http/protobuf", "http/json", "grpc"]


class Keys:
    """A CA, and what it issued, as files."""

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.other = trustme.CA(), trustme.CA()
        self.ca.cert_pem.write_to_path(folder / "ca.pem")
        self.other.cert_pem.write_to_path(folder / "other.pem")
        long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        self.issued = {
            "right": self.ca.issue_cert("127.0.0.1", "localhost"),
            "wrong": self.ca.issue_cert("elsewhere.example"),
            "expired": self.ca.issue_cert("127.0.0.1", not_after=long_ago),
            "client": self.ca.issue_cert("client.example"),
            "stranger": self.other.issue_cert("client.example"),
        }
        for name, cert in self.issued.items():
            cert.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
            cert.private_key_pem.write_to_path(folder / f"{name}.key")

    def path(self, name):
        return str(self.folder / name)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"))


def context_of(keys, name, client=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    keys.issued[name].configure_cert(context)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        keys.ca.configure_trust(context)
    return context


def credentials_of(keys, name, client=False):
    cert = keys.issued[name]
    pair = (cert.private_key_pem.bytes(), cert.cert_chain_pems[0].bytes())
    return grpc.ssl_server_credentials([pair], keys.ca.cert_pem.bytes() if client else None, client)


@pytest.fixture
def serving(keys):
    """Starts a receiver of a protocol with one of the certificates."""
    made = []

    def start(protocol, name="right", *, client=False):
        if protocol == "grpc":
            made.append(GrpcReceiver(credentials_of(keys, name, client)))
        else:
            made.append(Receiver(tls=context_of(keys, name, client)))
            made[-1].default = Answer(content_type=None)
        return made[-1]

    yield start
    for each in made:
        each.close()


def send(server, protocol, url=None, **options):
    url = url or server.url
    way = Endpoint(url if protocol == "grpc" else f"{url}/v1/traces", protocol=protocol, **options)
    return transport_of(Signal.TRACES, way, {}).send(b"", time.monotonic() + 5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_right_ca_is_enough(keys, serving, protocol):
    assert send(serving(protocol), protocol, certificate=keys.path("ca.pem")).verdict is Verdict.DELIVERED


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "name, certificate, says",
    [
        ("wrong", "ca.pem", "use an address in the endpoint that the certificate holds"),
        ("expired", "ca.pem", "it has expired"),
        ("right", None, "name the file of its CA with OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ("right", "other.pem", "name the file of its CA with OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ],
)
def test_what_cannot_be_trusted_gets_nothing(keys, serving, protocol, name, certificate, says):
    server = serving(protocol, name)
    answer = send(server, protocol, certificate=certificate and keys.path(certificate))
    assert answer.verdict is Verdict.UNSENT
    assert answer.reason.startswith("certificate verify failed")
    assert says in answer.reason
    assert not server.calls if protocol == "grpc" else not server.requests


def test_a_wrong_name_is_told_apart_from_a_wrong_address(keys, serving):
    server = serving("grpc", "wrong")
    answer = send(server, "grpc", server.url.replace("127.0.0.1", "localhost"), certificate=keys.path("ca.pem"))
    assert "use a name in the endpoint that the certificate holds" in answer.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_certificate_where_one_is_asked_for(keys, serving, protocol):
    pair = {"client_certificate": keys.path("client.pem"), "client_key": keys.path("client.key")}
    answer = send(serving(protocol, client=True), protocol, certificate=keys.path("ca.pem"), **pair)
    assert answer.verdict is Verdict.DELIVERED


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", [None, "stranger"])
def test_no_client_certificate_where_one_is_asked_for(keys, serving, protocol, name):
    """With TLS 1.3 that is heard after the handshake; it cannot have arrived all the same."""
    pair = {"client_certificate": keys.path(f"{name}.pem"), "client_key": keys.path(f"{name}.key")} if name else {}
    server = serving(protocol, client=True)
    answer = send(server, protocol, certificate=keys.path("ca.pem"), **pair)
    assert answer.verdict is Verdict.UNSENT
    if protocol != "grpc":  # grpcio hangs up without a word
        assert "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY" in answer.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_text_behind_https_is_told(receiver, protocol):
    answer = send(receiver, protocol, receiver.url.replace("http:", "https:"))
    assert answer.verdict is Verdict.UNSENT
    assert "begins with http://" in answer.reason


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_otlp_certificate_wins(keys, serving, monkeypatch, variable, protocol):
    """In both directions: it is trusted although the variable names another, and the variable's is not trusted beside it."""
    server = serving(protocol)
    monkeypatch.setenv(variable, keys.path("other.pem"))
    assert send(server, protocol, certificate=keys.path("ca.pem")).verdict is Verdict.DELIVERED
    monkeypatch.setenv(variable, keys.path("ca.pem"))
    assert send(server, protocol, certificate=keys.path("other.pem")).verdict is Verdict.UNSENT


@pytest.mark.parametrize(
    "options, says",
    [
        ({"certificate": "nowhere.pem"}, "OTEL_EXPORTER_OTLP_CERTIFICATE names {}/nowhere.pem, which cannot be read (No such file"),
        (
            {"certificate": "ca.pem", "client_certificate": "nowhere.pem"},
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE names {}/nowhere.pem, which",
        ),
        (
            {"certificate": "ca.pem", "client_certificate": "client.pem", "client_key": "nowhere.key"},
            "OTEL_EXPORTER_OTLP_CLIENT_KEY names {}/nowhere.key, which cannot be read",
        ),
        ({"certificate": "client.key"}, "OTEL_EXPORTER_OTLP_CERTIFICATE names {}/client.key, which holds no certificate in PEM"),
        ({"certificate": ""}, "OTEL_EXPORTER_OTLP_CERTIFICATE names {}, which cannot be read (Is a directory)"),
        (
            {"certificate": "ca.pem", "client_certificate": "client.pem", "client_key": "right.key"},
            "are no certificate in PEM with its key, unencrypted (KEY_VALUES_MISMATCH)",
        ),
        ({"certificate": "ca.pem", "client_certificate": "client.pem"}, "are no certificate in PEM with its key, unencrypted"),
    ],
)
def test_files_that_are_of_no_use_are_named(keys, serving, options, says):
    server = serving("http/protobuf")
    answer = send(server, "http/protobuf", **{name: keys.path(file) for name, file in options.items()})
    assert answer.verdict is Verdict.UNSENT
    assert says.format(keys.folder) in answer.reason


def test_an_encrypted_key_asks_nobody_for_its_password(keys, serving, tmp_path):
    """OpenSSL would ask on the terminal, and wait."""
    subprocess.run(
        ["openssl", "pkey", "-in", keys.path("client.key"), "-aes256", "-passout", "pass:secret", "-out", tmp_path / "locked.key"],
        check=True,
        capture_output=True,
    )
    server = serving("http/protobuf")
    files = {"certificate": keys.path("ca.pem"), "client_certificate": keys.path("client.pem"), "client_key": str(tmp_path / "locked.key")}
    answer = send(server, "http/protobuf", **files)
    assert answer.verdict is Verdict.UNSENT
    assert "unencrypted" in answer.reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_may_not_be_read_is_named(keys, serving, tmp_path):
    locked = tmp_path / "locked.pem"
    locked.write_bytes(keys.ca.cert_pem.bytes())
    locked.chmod(0)
    answer = send(serving("http/protobuf"), "http/protobuf", certificate=str(locked))
    assert "which cannot be read (Permission denied)" in answer.reason


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_rotated_certificates_count_from_the_next_connection_on(keys, serving, make, scope, tmp_path, protocol):
    """The CA's file is replaced; the process goes on."""
    file = tmp_path / "ca.pem"
    keys.other.cert_pem.write_to_path(file)
    server = serving(protocol)
    way = Endpoint(server.url if protocol == "grpc" else f"{server.url}/v1/traces", protocol=protocol, certificate=str(file))
    recorder = make(endpoints={Signal.TRACES: way})
    recorder.append(Kind.SPAN, scope, span("before"))
    assert not recorder.flush(2)

    fresh = tmp_path / "fresh.pem"
    keys.ca.cert_pem.write_to_path(fresh)
    fresh.replace(file)

    assert recorder.flush(5)
    assert server.names() == ["before"]


def test_the_application_goes_on_without_its_files(tmp_path, keys, serving):
    """From ``setup()`` to the end of the process: one line that says why, and nothing else."""
    server = serving("grpc")
    code = """
        import chegou_otel
        telemetry = chegou_otel.setup("shop")
        with telemetry.runtime.tracer("t").start_as_current_span("kept"):
            pass
        telemetry.flush(1)
        print("went on")
    """
    env = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))}
    env |= {
        "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path / "spool"),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere.pem",
    }
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "went on\n"
    assert done.stderr.count("OTEL_EXPORTER_OTLP_CERTIFICATE names /nowhere.pem, which cannot be read") == 1
    assert "Traceback" not in done.stderr
