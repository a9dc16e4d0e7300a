"""Beside others: real servers of every kind, sentry-sdk, and an active opentelemetry-instrument."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import sys
import threading
import zlib
from collections import Counter
from pathlib import Path

import pytest

from tests.delivery.receiver import PATIENCE, wait_for
from tests.e2e.shop import attributes
from tests.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

GUNICORN = ("-m", "gunicorn", "-b", "127.0.0.1:{port}", "shop_wsgi:application")
SERVERS = {
    "gunicorn": GUNICORN,
    "gunicorn --preload": (*GUNICORN, "--preload", "-w", "2"),
    "gunicorn gthread": (*GUNICORN, "-k", "gthread", "--threads", "3"),
    "gunicorn gevent": (*GUNICORN, "-k", "gevent"),
    "uvicorn": ("-m", "uvicorn", "--port", "{port}", "shop_asgi:application"),
    "runserver": ("manage.py", "runserver", "127.0.0.1:{port}"),
    "runserver, warnings are errors": ("-W", "error", "manage.py", "runserver", "--noreload", "127.0.0.1:{port}"),
    "chegou-otel run": ("-m", "chegou_otel", "run", "--", *GUNICORN[1:]),
}


def call(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.getheader("X-Correlation-ID"), answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def serving(shop, *command, **env):
    port = free_port()
    process = shop.start(*[part.format(port=port) for part in command], **env)

    def answers():
        assert process.poll() is None, shop.said()
        with contextlib.suppress(OSError):
            return call(port, "/stream/")[0] == 200

    wait_for(answers, 40, f"{command}\n{shop.said()}")
    try:
        yield port
    finally:
        # Ctrl-C reaches all of a terminal's processes: runserver's reloader and its child.
        os.killpg(process.pid, signal.SIGINT) if "runserver" in command else process.terminate()
        process.wait(15 * PATIENCE)


def served(shop, correlation):
    return [span for span, _, _ in list(shop.receiver.spans) if span.kind == 2 and attributes(span).get("correlation_id") == correlation]


@pytest.mark.parametrize("server", SERVERS)
def test_the_first_hour_with(shop, server):
    if "gevent" in server:
        pytest.importorskip("gevent")
    with serving(shop, *SERVERS[server]) as port:
        for path, status in (("buy", 200), ("fail", 500), ("stream", 200), ("none", 404)):
            assert call(port, f"/{path}/", X_Correlation_ID=f"order-{path}")[:2] == (status, f"order-{path}")
        for path in ("threads", "tasks"):
            told = json.loads(call(port, f"/{path}/", X_Correlation_ID=f"order-{path}")[2])
            assert set(told.values()) == {f"order-{path}"}
        assert call(port, "/enqueue/?what=now&now=1", X_Correlation_ID="order-now")[0] == 200
        assert call(port, "/enqueue/?what=later", X_Correlation_ID="order-later")[0] == 200
    shop.next_process()  # uvicorn ends by the signal that it got, past every exit hook: what it had not sent yet lies in the spool
    for path in ("buy", "fail", "stream", "none", "threads", "tasks", "now", "later"):
        wait_for(lambda path=path: served(shop, f"order-{path}"), 15, f"the span of {path}\n{shop.said()}")
        assert len(served(shop, f"order-{path}")) == 1
    said = [attributes(log)["correlation_id"] for log, _, _ in shop.receiver.logs if log.body.string_value == "job now"]
    assert said == ["order-now"]
    assert "chegou_otel failed" not in shop.said()


@pytest.mark.parametrize("worker", ["worker", "worker-pool"])
def test_jobs_of_every_kind(shop, worker):
    import rq

    queue = rq.Queue(connection=shop.redis)
    for what in ("well", "fail", "multiprocessing"):
        queue.enqueue("records.tell", what)
    options = ["--num-workers", "2"] if worker == "worker-pool" else []
    process = shop.start(
        "-W", "error::ResourceWarning", "-m", "rq.cli", worker, "--url", shop.url, "-c", "shop_settings", "--burst", *options
    )
    assert process.wait(60) == 0, shop.said()
    shop.next_process()

    wait_for(lambda: len(shop.jobs) >= 3, 15, f"three jobs\n{shop.said()}")
    assert Counter(attributes(job)["rq.job.status"] for job in shop.jobs) == {"finished": 2, "failed": 1}, shop.said()
    assert "chegou_otel failed" not in shop.said()


def test_nothing_is_left_behind_in_a_thread(shop):
    config = str(Path(__file__).parent / "proving" / "leftover.py")
    with serving(shop, *SERVERS["gunicorn gthread"], "--config", config) as port:
        for path in ("buy", "fail", "stream", "threads", "none") * 3:
            call(port, f"/{path}/", X_Correlation_ID="order-0001")
        left = wait_for(lambda: (found := [line for line in shop.notes() if line.startswith("left")]) and len(found) >= 15 and found, 10)
    assert set(left) == {"left None {}"}


@contextlib.contextmanager
def sentry():
    came = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            came.append(zlib.decompress(body, 31) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://key@127.0.0.1:{server.server_port}/1", came
    finally:
        server.shutdown()
        server.server_close()


def items(came, kind):
    """The payloads of that kind in Sentry's envelopes: a line of headers, then pairs of a header and a payload."""
    for envelope in came:
        lines = [json.loads(line) for line in envelope.split(b"\n")[1:] if line]
        yield from (payload for header, payload in zip(lines[::2], lines[1::2], strict=False) if header.get("type") == kind)


def test_beside_sentry(shop):
    pytest.importorskip("sentry_sdk")
    with sentry() as (dsn, came):
        with serving(shop, *SERVERS["gunicorn gthread"], SHOP_SENTRY_DSN=dsn) as port:
            for path, status in (("buy", 200), ("fail", 500), ("stream", 200), ("enqueue", 200)):
                assert call(port, f"/{path}/?what=fail", X_Correlation_ID=f"order-{path}")[:2] == (status, f"order-{path}")
        worker = shop.start("-m", "rq.cli", "worker", "--url", shop.url, "-c", "shop_settings", "--burst", SHOP_SENTRY_DSN=dsn)
        assert worker.wait(60) == 0, shop.said()
        for event in (b"no luck", b"the job failed"):
            wait_for(lambda event=event: event in b"".join(came), 10, f"sentry's event of {event}\n{shop.said()}")
    raised = [event["exception"]["values"][-1]["value"] for event in items(came, "event") if "exception" in event]
    assert sorted(raised) == ["no luck", "the job failed"]  # nothing of ours among what Sentry is told
    wait_for(lambda: shop.jobs, 15, f"the job\n{shop.said()}")
    for path in ("buy", "fail", "stream", "enqueue"):
        wait_for(lambda path=path: served(shop, f"order-{path}"), 15, path)
        assert len(served(shop, f"order-{path}")) == 1
    assert [(attributes(job)["rq.job.status"], attributes(job)["correlation_id"]) for job in shop.jobs] == [("failed", "order-enqueue")]
    assert len({span.span_id for span, _, _ in shop.receiver.spans}) == len(shop.receiver.spans)
    assert "chegou_otel failed" not in shop.said()


def test_beside_opentelemetry_instrument(shop):
    """Theirs are honoured, ours stay out: one server span a request, one span a Redis command, and the correlation ID is ours."""
    program = Path(sys.executable).with_name("opentelemetry-instrument")
    if not program.exists():
        pytest.skip("opentelemetry-instrument is not installed: `pip install 'chegou-otel[upstream]'`")
    env = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with serving(shop, str(program), sys.executable, *GUNICORN, **env) as port:
        for path, status in (("buy", 200), ("fail", 500), ("stream", 200), ("enqueue", 200)):
            assert call(port, f"/{path}/?what=well", X_Correlation_ID=f"order-{path}")[:2] == (status, f"order-{path}")
    worker = shop.start(str(program), sys.executable, "-m", "rq.cli", "worker", "--url", shop.url, "-c", "shop_settings", "--burst", **env)
    assert worker.wait(60) == 0, shop.said()

    def servers():
        return [span for span, _, _ in list(shop.receiver.spans) if span.kind == 2]

    wait_for(lambda: len(servers()) >= 5, 15, f"server spans\n{shop.said()}")
    told = [attributes(span) for span in servers()]
    routes = Counter(each.get("http.route") or each.get("http.target") for each in told)
    assert [routes[f"{path}/"] for path in ("buy", "fail", "enqueue")] == [1, 1, 1], routes
    assert [attributes(job)["correlation_id"] for job in shop.jobs] == ["order-enqueue"]
    assert "Traceback" not in shop.said().replace("no luck", "") or "chegou_otel failed" not in shop.said()
