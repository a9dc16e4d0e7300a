"""A real `chegou-otel dev`, and what talks to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.local.wires import PROTOBUF, Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-m", "chegou_otel"]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """As in a user's shell: nothing of the test runner, nothing of OpenTelemetry."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "OTEL", "CHEGOU", "PYTHONPATH", "NO_COLOR"))}
    path = os.pathsep.join(filter(None, [(extra or {}).get("PYTHONPATH"), str(ROOT)]))
    return {**kept, **(extra or {}), "PYTHONPATH": path}


def until(probe: Callable[[], T | None], seconds: float = 20.0) -> T:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return answer


class Dev:
    """A running `chegou-otel dev --json`."""

    def __init__(
        self, data: Path, *options: str, env: Mapping[str, str] | None = None, ports: Sequence[str] = ("--port=0", "--grpc-port=0")
    ) -> None:
        self.data = data
        self.said = data.with_suffix(".err")
        with self.said.open("ab") as errors:
            self.process = subprocess.Popen(
                [*CLI, "dev", "--json", "--data", str(data), *ports, *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(env),
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.said.read_text()
        self.addresses: dict[str, Any] = json.loads(line)
        self.url: str = self.addresses["url"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@contextlib.contextmanager
def running(data: Path, *options: str, **named: Any) -> Iterator[Dev]:
    """A `chegou-otel dev` that is gone afterwards, whatever happens."""
    dev = Dev(data, *options, **named)
    try:
        yield dev
    finally:
        dev.kill()
        assert dev.process.stdout
        dev.process.stdout.close()


def ask(
    url: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """One request on a connection of its own; never follows a redirect."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def get_json(url: str, path: str) -> tuple[int, Any]:
    status, _, body = ask(url, "GET", path)
    return status, json.loads(body)


def post(url: str, path: str, body: bytes, headers: Mapping[str, str] = PROTOBUF) -> None:
    status, _, answer = ask(url, "POST", path, body, headers)
    assert status == 200, answer


def send(url: str, sent: Sent) -> Sent:
    for path, body in sent.bodies:
        post(url, path, body)
    return sent


def find(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`chegou-otel find`."""
    return subprocess.run([*CLI, "find", *arguments], capture_output=True, text=True, timeout=60, env=environment(env), check=False)
