"""Start programs, wait until they answer, and leave none of them behind."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PR_SET_PDEATHSIG = 1
TAIL_LINES = 25


class StartError(RuntimeError):
    """A program did not start; the message says why and what to do next."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], deadline: float, pause: float = 0.05) -> bool:
    """Ask until the answer is true or `deadline` seconds went by."""
    end = time.monotonic() + deadline
    while True:
        if condition():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(pause)


def answers(port: int) -> bool:
    """Whether something listens on the port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _die_with_parent() -> None:
    """Linux: the kernel stops this program when the one that started it is gone, SIGKILL included."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Process:
    """One program; what it prints goes to a file that can be shown when something goes wrong."""

    def __init__(self, name: str, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: Path) -> None:
        self.name = name
        self.output = output
        with output.open("ab") as sink:
            self._popen = subprocess.Popen(
                [*command],
                cwd=cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - nothing here has threads
            )
        self.pid = self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def text(self) -> str:
        """What it printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str, deadline: float = 30) -> None:
        """Wait until `condition` holds; raise StartError with the last lines it printed when it does not."""
        if until(lambda: condition() or self.returncode is not None, deadline) and self.returncode is None:
            return
        reason = f"ended with code {self.returncode}" if self.returncode is not None else f"was not {what} after {deadline:.0f} s"
        tail = "\n".join(f"    {line}" for line in self.text().splitlines()[-TAIL_LINES:])
        raise StartError(f"{self.name} {reason}. It printed (all of it: {self.output}):\n{tail}")

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        return self._popen.wait(timeout)

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        self._popen.send_signal(number)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def ask_to_end(self) -> None:
        """SIGTERM, when it still runs."""
        if self.returncode is None:
            self.signal(signal.SIGTERM)

    def stop(self, grace: float = 8) -> None:
        """Ask it to end, insist after `grace` seconds, and end what is left of its group."""
        self.ask_to_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(grace)
        self._signal_group(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(5)


class Processes:
    """A group of programs that are stopped together: those that use the others first, side by side."""

    def __init__(self, folder: Path, users: Sequence[str] = ("web", "worker")) -> None:
        self.folder = folder
        self.users = users
        self.running: list[Process] = []

    def start(self, name: str, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Process:
        """Start a program; its output is in `<folder>/<name>.log`."""
        process = Process(name, command, cwd=cwd, env=env, output=self.folder / f"{name}.log")
        self.running.append(process)
        return process

    def stop(self) -> None:
        """Stop them all."""
        users = [process for process in self.running if process.name in self.users]
        for wave in (users, [process for process in self.running if process not in users]):
            for process in wave:
                process.ask_to_end()
            for process in wave:
                process.stop()
        self.running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
