"""`chegou-otel find`: where it asks, what it prints, and what its exit code says."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.local.programs import CLI, Dev, environment, find, running, send
from tests.local.wires import Sent, order, uuid7

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with running(tmp_path_factory.mktemp("find") / "data") as dev:
        yield dev


@pytest.fixture(scope="module")
def sent(backend: Dev) -> Sent:
    return send(backend.url, order())


WORDS = ("POST /orders/ → 201", "job sync failed 1×, finished on attempt 2", "4× SELECT * FROM item", "GET rate:1", "http://api/rate", "send default",
         "attempt 1/3 → retried", "ValueError: refused", "attempt 2/3 → finished")  # fmt: skip
LOGS = ("INFO hub.views: order 1 received", "WARN hub.views: attempt 1 retried")


@pytest.mark.parametrize("by", ["correlation_id", "trace_id", "job_id"])
def test_from_the_local_backend(backend: Dev, sent: Sent, by: str) -> None:
    found = find(getattr(sent, by), "--url", backend.url)
    assert (found.returncode, found.stderr) == (0, "")
    for words in (*WORDS, *LOGS, sent.correlation_id):
        assert words in found.stdout
    assert "\x1b" not in found.stdout


def test_from_its_data(backend: Dev, sent: Sent) -> None:
    assert find(sent.correlation_id, "--data", str(backend.data)).stdout == find(sent.correlation_id, "--url", backend.url).stdout


def test_from_data_that_a_kill_left_behind(tmp_path: Path) -> None:
    with running(tmp_path / "data") as dev:
        sent = send(dev.url, order())
        dev.kill()
    found = find(sent.correlation_id, "--data", str(tmp_path / "data"))
    assert found.returncode == 0
    assert "order 1 received" in found.stdout


def test_from_jaeger(backend: Dev, sent: Sent) -> None:
    """Our own API speaks as Jaeger does, and the logs are said to be elsewhere."""
    found = find(sent.correlation_id, "--jaeger", backend.url)
    assert found.returncode == 0
    for words in (*WORDS, "! Jaeger keeps no logs"):
        assert words in found.stdout


def test_by_the_environment(backend: Dev, sent: Sent) -> None:
    assert find(sent.correlation_id, env={"CHEGOU_OTEL_QUERY_URL": backend.url}).returncode == 0
    assert find(sent.correlation_id, "--url", backend.url, env={"CHEGOU_OTEL_QUERY_URL": NOBODY}).returncode == 0
    wrong = find(sent.correlation_id, env={"CHEGOU_OTEL_QUERY_URL": "nonsense"})
    assert wrong.returncode == 2
    assert "CHEGOU_OTEL_QUERY_URL" in wrong.stderr


def test_without_protobuf_the_backend_can_still_be_asked(backend: Dev, sent: Sent, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('opentelemetry.proto', 'google', 'grpc', 'jinja2'): sys.modules[name] = None"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    assert find(sent.correlation_id, "--url", backend.url, env=env).returncode == 0
    without = find(sent.correlation_id, "--data", str(backend.data), env=env)
    assert without.returncode == 1
    assert "pip install 'chegou-otel[dev]'" in without.stderr


def test_json(backend: Dev, sent: Sent) -> None:
    told = json.loads(find(sent.correlation_id, "--url", backend.url, "--json").stdout)
    assert told["verdict"]["outcome"] == "recovered"
    (server,) = [span for span in told["spans"] if span["kind"] == "SERVER"]
    assert server["attributes"]["http.response.status_code"] == 201
    assert {span["status"] for span in told["spans"] if span["kind"] == "CONSUMER"} == {"ERROR", "UNSET"}
    assert len({span["trace_id"] for span in told["spans"]}) == 1
    assert "order 1 received" in [log["body"] for log in told["logs"]]


def test_not_found(backend: Dev) -> None:
    found = find(uuid7(), "--url", backend.url)
    assert (found.returncode, found.stdout) == (1, "")
    assert "--wait" in found.stderr
    assert find("x", "--data", str(backend.data)).returncode == 1


@pytest.mark.parametrize("where", [["--url", NOBODY], ["--jaeger", NOBODY]])
def test_unreachable(where: list[str]) -> None:
    found = find("x", *where)
    assert (found.returncode, found.stdout) == (2, "")
    assert "Connection refused" in found.stderr
    assert "chegou-otel dev" in found.stderr


def test_somebody_else_answers(tmp_path: Path) -> None:
    import http.server

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        found = find("x", "--url", f"http://127.0.0.1:{other.server_address[1]}")
        other.shutdown()
    assert found.returncode == 2
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], [""], ["a\nb"], ["x" * 300], ["x", "--url", "ftp://x"], ["x", "--wait", "-1"], ["x", "--url", NOBODY, "--jaeger", NOBODY]],
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert find(*arguments).returncode == 2


def test_wait_for_what_comes_later(backend: Dev) -> None:
    late = order()
    timer = threading.Timer(1.0, send, args=(backend.url, late))
    timer.start()
    found = find(late.correlation_id, "--url", backend.url, "--wait", "30")
    timer.join()
    assert found.returncode == 0
    assert "finished on attempt 2" in found.stdout


def test_wait_until_the_story_is_complete(backend: Dev) -> None:
    """The request is there, its job is not: with --wait the answer has both."""
    whole = order()
    web, job = Sent(whole.correlation_id, "", "", whole.bodies[:2]), Sent(whole.correlation_id, "", "", whole.bodies[2:])
    send(backend.url, web)
    now = find(whole.correlation_id, "--url", backend.url)
    assert "is enqueued; no run of it has arrived" in now.stdout
    timer = threading.Timer(1.0, send, args=(backend.url, job))
    timer.start()
    later = find(whole.correlation_id, "--url", backend.url, "--wait", "30")
    timer.join()
    assert "finished on attempt 2" in later.stdout


def test_wait_ends(backend: Dev) -> None:
    began = time.monotonic()
    assert find("nobody", "--url", backend.url, "--wait", "0.5").returncode == 1
    assert time.monotonic() - began < 15


def test_colours_on_a_terminal_only(backend: Dev, sent: Sent) -> None:
    def on_a_terminal(**env: str) -> bytes:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*CLI, "find", sent.correlation_id, "--url", backend.url], stdout=theirs, env={**environment(), **env}
        ) as process:
            os.close(theirs)
            said = b""
            try:
                while part := os.read(ours, 65536):
                    said += part
            except OSError:  # how a terminal says that the other side is closed
                pass
            os.close(ours)
            assert process.wait(30) == 0
        return said

    assert b"\x1b[32" in on_a_terminal(TERM="xterm")
    assert b"\x1b[" not in on_a_terminal(TERM="xterm", NO_COLOR="1")


def test_a_reader_that_has_enough(backend: Dev, sent: Sent) -> None:
    command = f"{sys.executable} -m chegou_otel find {sent.correlation_id} --url {backend.url} --json | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert (result.stdout, result.stderr) == ("{\n", "")
