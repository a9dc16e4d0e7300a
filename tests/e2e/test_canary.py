"""Nothing leaks: a secret of its own in every place that a request has, and every byte that leaves is searched for it.

What leaves: the bodies and headers of all OTLP requests, the spool on the disk, what a third party receives in headers that are ours.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import os
import re
import secrets as random
import signal
import socket
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

from tests.delivery.receiver import wait_for
from tests.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PROJECT = Path(__file__).parent / "proving"
ROOT = Path(__file__).parents[2]
#: Headers of ours that a third party must not see.
OURS = re.compile(rb"^(traceparent|tracestate|baggage|x-correlation-id):", re.IGNORECASE | re.MULTILINE)
SHAPES = {
    "cpf": "529.982.247-25",
    "cpf, digits": "52998224725",
    "cnpj": "11.222.333/0001-81",
    "card": "4111 1111 1111 1111",
    "card, digits": "5555555555554444",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "bearer": "Bearer mF9.B5f-4.1JqMzzzzzz",
    "pem": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----",
}


class Everything(http.server.BaseHTTPRequestHandler):
    """Keeps every byte of a request, unpacked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = zlib.decompress(body, 31)
        self.server.came.append((self.path, bytes(self.headers), body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def listening(host="127.0.0.1"):
    server = http.server.ThreadingHTTPServer((host, 0), Everything)
    server.came = []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def own_address():
    """An address of this machine that is not loopback: to the package, a third party."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return sock.getsockname()[0]


class Secrets(dict):
    """A new secret for every place that is asked for."""

    def __missing__(self, place):
        self[place] = "canary" + random.token_hex(9)
        return self[place]


def places():
    """The names of all places that the project asks for, out of its source."""
    source = (PROJECT / "leak_urls.py").read_text()
    names = {name for pair in re.findall(r"""\bs\((?:"([^"]+)"|'([^']+)')\)""", source) for name in pair if name}
    for client in ("requests", "httpx", "urllib3", "urllib", "aiohttp"):
        names |= {f"{client} {part}, {kind}" for part in ("userinfo", "query", "header") for kind in ("third party", "closed port")}
    return names


def call(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        with contextlib.suppress(http.client.IncompleteRead):
            answer.read()
        return answer.status
    finally:
        connection.close()


@pytest.fixture(scope="module")
def played(tmp_path_factory, redis_port):
    """The whole play, once: what was hidden, and all that left."""
    folder = tmp_path_factory.mktemp("leak")
    spool = folder / "spool"
    hidden = Secrets()
    on_disk = []
    with listening() as collector, listening(own_address()) as third, (folder / "said.log").open("wb") as said:
        env = {
            **{key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))},
            "LEAK_DATABASE": str(folder / "db.sqlite3"), "LEAK_REDIS_PORT": str(redis_port), "DJANGO_SETTINGS_MODULE": "leak_settings",
            "CHEGOU_OTEL_SPOOL_DIR": str(spool), "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(PROJECT)]), "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }  # fmt: skip
        common = {"cwd": PROJECT, "env": env, "stdout": said, "stderr": subprocess.STDOUT}
        port = free_port()
        gunicorn = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--access-logfile", "-", "leak_wsgi"]
        web = subprocess.Popen(gunicorn, **common)
        try:
            wait_for(lambda: answers(port), 60, "gunicorn")
            where = [f"http://{third.server_address[0]}:{third.server_port}", f"http://127.0.0.1:{free_port()}"]
            told = json.dumps({"secrets": {place: hidden[place] for place in places()}, "where": where})
            headers = {
                "Authorization": f"Basic {base64.b64encode(b'ana:' + hidden['authorization'].encode()).decode()}",
                "Cookie": f"sessionid={hidden['session cookie']}; other={hidden['cookie']}",
                "X-Api-Key": hidden["x-api-key"],
                "X-Auth-Token": hidden["x-auth-token"],
                "X-Note": f"password={hidden['captured header']}",
                "Referer": f"http://ana:{hidden['referer userinfo']}@x/?token={hidden['referer query']}",
                "User-Agent": f"agent/1 (token={hidden['user agent']})",
                "X-Correlation-ID": f"password={hidden['malformed correlation id']}",
                "Baggage": f"user={hidden['incoming baggage']}",
            }
            query = f"token={hidden['query']}&PASSWORD={hidden['query, capitals']}&user%5Bapi_key%5D={hidden['query, brackets']}&n=1"
            statuses = [
                call(port, "POST", f"/everything/?{query}", told, headers),
                call(
                    port,
                    "POST",
                    "/form/",
                    f"user=ana&password={hidden['form field']}",
                    {"Content-Type": "application/x-www-form-urlencoded"},
                ),
                call(port, "GET", f"/reset/{hidden['path parameter']}/"),
                call(port, "GET", f"/stream/?token={hidden['stream']}"),
                call(port, "GET", f"/none/?access_token={hidden['query of a 404']}", headers={"Cookie": f"a={hidden['cookie of a 404']}"}),
                call(
                    port,
                    "POST",
                    "/patterns/",
                    json.dumps([*SHAPES.values()]),
                    {"X-Note": SHAPES["cpf"], "User-Agent": SHAPES["card, digits"]},
                ),
                call(port, "GET", f"/none/{SHAPES['cpf, digits']}/?q={SHAPES['cpf, digits']}&r={SHAPES['jwt']}"),
            ]
            on_disk += [path.read_bytes() for path in spool.rglob("*.seg")]
            worker = [
                sys.executable,
                "-m",
                "rq.cli",
                "worker",
                "--url",
                f"redis://127.0.0.1:{redis_port}/0",
                "-c",
                "leak_settings",
                "--burst",
                "-v",
            ]
            assert subprocess.run(worker, **common, timeout=60, check=False).returncode == 0
            on_disk += [path.read_bytes() for path in spool.rglob("*.seg")]
        finally:
            web.send_signal(signal.SIGTERM)
            web.wait(20)
        on_disk += [path.read_bytes() for path in spool.rglob("*") if path.is_file()]
        assert statuses == [200, 500, 200, 200, 404, 200, 404], (folder / "said.log").read_text()[-4000:]
        yield hidden, collector.came, on_disk, third.came


def answers(port):
    with contextlib.suppress(OSError):
        return call(port, "GET", "/reset/x/") == 200


def around(text, found):
    """Where it was found, for the one who has to mend it."""
    at = found.index(text)
    return found[max(0, at - 120) : at + 60]


def forms(secret):
    """A secret as it stands, and as it looks when somebody has encoded it."""
    raw = secret.encode()
    yield from (raw, base64.b64encode(raw).rstrip(b"=")[:-1], raw.hex().encode())


def test_the_play_was_seen(played):
    """What is searched is what was recorded: else nothing found would mean nothing."""
    _, came, on_disk, third = played
    everything = b"".join(body for _, _, body in came)
    seen = [b"POST /everything/", b"mine", b"login", b"ValueError", b"SELECT", b"rq.worker", b"process default", b"leak.calls", b"PIPELINE GET SET",
            b"user_agent.original", b"http.request.header.x-note", b"leak.jobs", b"gunicorn.access", b"django.db.backends"]  # fmt: skip
    assert [each for each in seen if each not in everything] == []
    assert len(third) >= 5
    assert any(b"/everything/" in each for each in on_disk)


def test_no_secret_leaves_by_telemetry(played):
    hidden, came, on_disk, _ = played
    leaving = {f"{path} {n}": body + headers for n, (path, headers, body) in enumerate(came)}
    leaving |= {f"spool {n}": content for n, content in enumerate(on_disk)}
    leaks = {
        place: (where, around(form, content))
        for where, content in leaving.items()
        for place, secret in hidden.items()
        for form in forms(secret)
        # A path is a name, in logs and elsewhere; only where its route says what is secret, on the span, it is hidden.
        if form in content and (place != "path parameter" or where.startswith("/v1/traces"))
    }
    assert not leaks, "\n".join(f"{place}: {found}" for place, found in sorted(leaks.items()))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_leaves_by_telemetry(played, shape):
    _, came, on_disk, _ = played
    secret = SHAPES[shape].removeprefix("Bearer ").encode()
    found = [
        around(form, content)
        for content in [*on_disk, *(body for _, _, body in came)]
        for form in (secret, secret.replace(b"\n", b"\\n"))
        if form in content
    ]
    assert not found, found[:5]


def test_a_third_party_receives_nothing_of_ours(played):
    _, _, _, third = played
    assert [headers for _, headers, _ in third if OURS.search(headers)] == []
    assert b"canary" in b"".join(headers for _, headers, _ in third)  # its own header did arrive
