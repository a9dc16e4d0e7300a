"""`chegou-otel dev` as a real process: what it says, how it ends, and that a kill loses nothing that was answered."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from chegou_otel.local.store import Store
from tests.local.programs import CLI, Dev, ask, environment, get_json, post, running, send, until
from tests.local.wires import PROTOBUF, Sender, order

if TYPE_CHECKING:
    from pathlib import Path


def dev(*options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    return subprocess.run([*CLI, "dev", *options], capture_output=True, text=True, timeout=30, env=environment(env), check=False)


def test_it_says_where_it_listens_and_serves_there(tmp_path: Path) -> None:
    with running(tmp_path / "data") as backend:
        sent = send(backend.addresses["endpoint"], order())
        assert get_json(backend.url, f"/c/{sent.correlation_id}.json")[1]["verdict"]["outcome"] == "recovered"
        with grpc.insecure_channel(backend.addresses["grpc"]) as channel:
            sender = Sender()
            sender.span("by grpc")
            channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")(sender.traces_body, timeout=10)
        assert get_json(backend.url, f"/c/{sender.correlation_id}.json")[0] == 200
        assert backend.addresses["data"] == str(tmp_path / "data")


def test_it_listens_on_this_machine_only(tmp_path: Path) -> None:
    with running(tmp_path / "data") as backend:
        listening = [c.laddr for c in psutil.Process(backend.process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.port for address in listening} == {backend.addresses["http_port"], backend.addresses["grpc_port"]}
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_for_people(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*CLI, "dev", "--port=0", "--grpc-port=0", "--ui-port=0", "--data", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line
            said += line
        page = next(line.split()[1] for line in said.splitlines() if "stories" in line)
        assert ask(page, "GET", "/")[0] == 200
        for words in ("OTLP/HTTP  http://127.0.0.1:", "OTLP/gRPC  127.0.0.1:", str(tmp_path), "(7 days)"):
            assert words in said
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0, also with idle connections open, and what was answered is there without recovery."""
    with running(tmp_path / "data") as backend:
        sent = send(backend.url, order())
        with socket.create_connection(("127.0.0.1", backend.addresses["http_port"])):
            began = time.monotonic()
            assert backend.end(number) == 0
            assert time.monotonic() - began < 5
        assert backend.said.read_text() == ""
    assert not list((tmp_path / "data").glob("*-wal"))
    assert len(Store(tmp_path / "data").find(sent.correlation_id).spans) == 11


def test_it_answers_what_is_under_way_before_it_ends(tmp_path: Path) -> None:
    with running(tmp_path / "data") as backend:
        stop, answered = threading.Event(), []

        def work() -> None:
            while not stop.is_set():
                sender = Sender()
                sender.span("x")
                try:
                    status, _, _ = ask(backend.url, "POST", "/v1/traces", sender.traces_body, PROTOBUF)
                except OSError:
                    return
                if status == 200:
                    answered.append(sender.correlation_id)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(answered) > 20)
        assert backend.end() == 0
        stop.set()
        for thread in threads:
            thread.join()
    store = Store(tmp_path / "data")
    assert not [each for each in answered if not store.find(each)]


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """SIGKILL at random moments under load, on the same data: everything answered is there, once."""
    answered: list[str] = []
    for _ in range(6):
        with running(tmp_path / "data") as backend:
            before, threads = len(answered), [threading.Thread(target=_send_until_gone, args=(backend, answered)) for _ in range(4)]
            for thread in threads:
                thread.start()
            until(lambda before=before: len(answered) > before + 10)
            time.sleep(random.uniform(0, 0.2))
            backend.kill()
            for thread in threads:
                thread.join()
    store = Store(tmp_path / "data")
    assert len(answered) > 60
    lost = [each for each in answered if sorted(span.name for span in store.find(each).spans) != ["a", "b", "c"]]
    assert lost == []


def _send_until_gone(backend: Dev, answered: list[str]) -> None:
    while True:
        sender = Sender()
        for name in "abc":
            sender.span(name)
        try:
            post(backend.url, "/v1/traces", sender.traces_body)
        except (OSError, AssertionError):
            return
        answered.append(sender.correlation_id)


def test_what_was_not_answered_is_taken_again(tmp_path: Path) -> None:
    """A sender that repeats after a kill does not double anything."""
    sent = order()
    with running(tmp_path / "data") as backend:
        send(backend.url, sent)
        backend.kill()
    with running(tmp_path / "data") as backend:
        send(backend.url, sent)
        told = get_json(backend.url, f"/c/{sent.correlation_id}.json")[1]
    assert (len(told["spans"]), len(told["logs"])) == (11, 3)


# --- what can go wrong ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> object:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port", "--ui-port"])
def test_a_port_that_is_taken_is_said(tmp_path: Path, taken: int, option: str) -> None:
    ports = {"--http-port": 0, "--grpc-port": 0, option: taken}
    result = dev("--data", str(tmp_path), *(f"{name}={port}" for name, port in ports.items()))
    assert result.returncode == 1
    assert "Is it running already?" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_grpcio_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("raise ModuleNotFoundError(\"No module named 'grpc'\", name='grpc')")
    with running(tmp_path / "data", env={"PYTHONPATH": str(tmp_path)}, ports=("--port=0",)) as backend:
        assert backend.addresses["grpc"] is None
        send(backend.url, order())
        until(lambda: "pip install 'chegou-otel[dev]'" in backend.said.read_text())


@pytest.mark.parametrize("missing", ["opentelemetry.proto", "jinja2"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, missing: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{missing!r}] = None")
    result = dev("--port=0", "--data", str(tmp_path / "data"), env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    assert "pip install 'chegou-otel[dev]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_grpc_when_asked(tmp_path: Path) -> None:
    with running(tmp_path / "data", ports=("--port=0", "--no-grpc")) as backend:
        assert backend.addresses["grpc"] is None


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = dev("--port=0", "--grpc-port=0", "--data", str(tmp_path / "file" / "data"))
    assert result.returncode == 1
    assert "--data gives another folder" in result.stderr


@pytest.mark.parametrize("options", [["--http-port=65536"], ["--http-port=x"], ["--retention-days=0"], ["--nonsense"]])
def test_wrong_usage(options: list[str]) -> None:
    assert dev(*options).returncode == 2


def test_only_the_last_days_are_kept(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "2020-01-01.v1.db").touch()
    with running(data, "--retention-days=1"):
        assert not (data / "2020-01-01.v1.db").exists()


def test_it_makes_no_file_that_others_can_read(tmp_path: Path) -> None:
    with running(tmp_path / "data") as backend:
        send(backend.url, order())
        assert {path.stat().st_mode & 0o077 for path in [tmp_path / "data", *(tmp_path / "data").iterdir()]} == {0}


def test_json_is_one_line(tmp_path: Path) -> None:
    with running(tmp_path / "data") as backend:
        assert json.loads(json.dumps(backend.addresses)) == backend.addresses
        backend.end()
        assert backend.process.stdout.read() == ""
