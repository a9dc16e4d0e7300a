"""The real servers: where their binaries are, and how to start them with the configuration that we ship.

A binary is looked for in the folder that CHEGOU_OTEL_BIN names, then on PATH, then in the cache that `.ci/servers build` fills.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0  # generous: two busy cores
PROGRAMS = {  # what each server's program is called, in images and in packages
    "collector": ("otelcol-contrib", "otelcol"),
    "jaeger": ("jaeger",),
    "prometheus": ("prometheus",),
}


def find_binary(name: str) -> tuple[Path | None, str]:
    """The server's program, or None and what to do about it."""
    folder = os.environ.get("CHEGOU_OTEL_BIN")
    if folder:
        for program in PROGRAMS[name]:
            if os.access(Path(folder) / program, os.X_OK):
                return Path(folder) / program, ""
    for program in PROGRAMS[name]:
        on_path = shutil.which(program)
        if on_path and _right_generation(name, on_path):
            return Path(on_path), ""
    cached = subprocess.run([ROOT / ".ci" / "servers", "path", name], capture_output=True, text=True, check=True).stdout.strip()
    if os.access(cached, os.X_OK):
        return Path(cached), ""
    return None, f"no {name}: `.ci/servers build {name}` builds it (needs Go), or CHEGOU_OTEL_BIN names a folder that has it"


def need(name: str) -> Path:
    """The server's program; without it a test is skipped on a laptop and fails in CI."""
    binary, reason = find_binary(name)
    if binary is not None:
        return binary
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(reason)
    pytest.skip(reason)


def _right_generation(name: str, program: str) -> bool:
    """Distributions ship a Prometheus 2 that has no OTLP receiver."""
    if name != "prometheus":
        return True
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return "version 3." in said.stdout + said.stderr


def free_ports(count: int) -> list[int]:
    """All at once, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until(what: str, probe: Callable[[], T | None], seconds: float = 30.0, said: Callable[[], str] = str) -> T:
    """The first true answer of the probe; an AssertionError that says what never came."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{said()}"
        time.sleep(0.1)


@dataclass
class Server:
    """One running program; its output is in `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    folder: Path

    def said(self) -> str:
        return f"the last words of {self.name}:\n" + "\n".join(
            line[:400] for line in self.log.read_text(errors="replace").splitlines()[-15:]
        )


@dataclass
class Collector(Server):
    otlp: str  # for OTEL_EXPORTER_OTLP_ENDPOINT
    grpc: str
    health: str
    metrics: str

    def logs(self) -> str:
        """What the logs pipeline has written so far."""
        written = sorted((self.folder / "logs").glob("logs*.jsonl"))
        return "".join(file.read_text() for file in written)

    def own_metrics(self) -> str:
        return requests.get(self.metrics, timeout=5).text


@dataclass
class Jaeger(Server):
    otlp_grpc: str
    url: str


@dataclass
class Prometheus(Server):
    url: str

    @property
    def otlp(self) -> str:
        return f"{self.url}/api/v1/otlp"

    def query(self, expression: str) -> list[dict]:
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        answer.raise_for_status()
        return answer.json()["data"]["result"]


@contextlib.contextmanager
def _running(
    name: str, arguments: list[str], environment: Mapping[str, str], folder: Path, ready: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    binary = need(name)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [binary, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        wait_until(f"{name} is ready", lambda: _answers(ready, process), START_SECONDS, lambda: log.read_text(errors="replace")[-4000:])
        yield process, log
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"{process.args} left with {process.returncode}"
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


@contextlib.contextmanager
def start_jaeger(folder: Path) -> Iterator[Jaeger]:
    """Jaeger with deploy/jaeger/config.yaml, on free ports, its store in the folder."""
    otlp, http, grpc, health, metrics = free_ports(5)
    environment = {
        "JAEGER_OTLP_LISTEN": f"127.0.0.1:{otlp}",
        "JAEGER_QUERY_HTTP": f"127.0.0.1:{http}",
        "JAEGER_QUERY_GRPC": f"127.0.0.1:{grpc}",
        "JAEGER_HEALTH": f"127.0.0.1:{health}",
        "JAEGER_METRICS_PORT": str(metrics),
        "JAEGER_DATA": str(folder / "store"),
    }
    arguments = ["--config", str(ROOT / "deploy" / "jaeger" / "config.yaml")]
    with _running("jaeger", arguments, environment, folder, f"http://127.0.0.1:{health}/status") as (process, log):
        yield Jaeger("jaeger", process, log, folder, otlp_grpc=f"127.0.0.1:{otlp}", url=f"http://127.0.0.1:{http}")


@contextlib.contextmanager
def start_prometheus(folder: Path) -> Iterator[Prometheus]:
    """Prometheus with deploy/prometheus/prometheus.yml and the flags of docker-compose.jaeger.yml."""
    (port,) = free_ports(1)
    arguments = [
        f"--config.file={ROOT / 'deploy' / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
    ]
    url = f"http://127.0.0.1:{port}"
    with _running("prometheus", arguments, {}, folder, f"{url}/-/ready") as (process, log):
        yield Prometheus("prometheus", process, log, folder, url=url)


@contextlib.contextmanager
def start_collector(folder: Path, *, jaeger: str, prometheus: str) -> Iterator[Collector]:
    """The collector with the shipped collector-config.yaml: nothing but environment variables differs."""
    grpc, http, health, metrics = free_ports(4)
    environment = {
        "COLLECTOR_OTLP_GRPC": f"127.0.0.1:{grpc}",
        "COLLECTOR_OTLP_HTTP": f"127.0.0.1:{http}",
        "COLLECTOR_HEALTH": f"127.0.0.1:{health}",
        "COLLECTOR_METRICS_PORT": str(metrics),
        "COLLECTOR_DATA": str(folder),
        "JAEGER_OTLP": jaeger,
        "PROMETHEUS_OTLP": prometheus,
    }
    arguments = ["--config", str(ROOT / "collector-config.yaml")]
    with _running("collector", arguments, environment, folder, f"http://127.0.0.1:{health}/") as (process, log):
        yield Collector(
            "collector",
            process,
            log,
            folder,
            otlp=f"http://127.0.0.1:{http}",
            grpc=f"127.0.0.1:{grpc}",
            health=f"http://127.0.0.1:{health}/",
            metrics=f"http://127.0.0.1:{metrics}/metrics",
        )
