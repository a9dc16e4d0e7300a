"""The demo: what it shows, when it says no, and that it leaves nothing behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.e2e.chegou_hub import CHAPTERS, FOLDER, Story, free_port, missing, until

pytestmark = pytest.mark.slow

UUID = re.compile(r"^Correlation ID  ([0-9a-f-]{36})$", re.MULTILINE)
PAGE = re.compile(r"^The same page   (http://\S+)$", re.MULTILINE)


def environment(**extra: str) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "OTEL", "CHEGOU"))}, **extra}


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the demo; whatever the test does, it is ended."""
    started: list[subprocess.Popen[str]] = []

    def go(*options: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(FOLDER / "demo.py"), *options],
            env=environment(TMPDIR=str(tmp_path), **(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield go
    for process in started:
        process.terminate()
        process.communicate(timeout=30)


def everyone(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):  # a work-horse that has done its job
        return process.cmdline()
    return []


def wait_until_it_stays(process: "subprocess.Popen[str]") -> str:
    """Read what it prints until it says that it stays."""
    lines = []
    assert process.stdout
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C ends it." in line:
            return "".join(lines)
    pytest.fail("".join(lines))


def test_once_tells_the_whole_story(start: Start, tmp_path: Path) -> None:
    """Exit code 0, the story, its ID and its page; nothing is left running or lying about."""
    process = start("--once")

    output, _ = process.communicate(timeout=110)

    assert process.returncode == 0, output
    (correlation_id,) = UUID.findall(output)
    (page,) = PAGE.findall(output)
    assert page.endswith(f"/c/{correlation_id}")
    story = output[output.index(f"The story of {correlation_id}") : output.index("Correlation ID  ")]
    for words in ("POST", "INSERT", "/frete", "send default", "process default", "Transportadora recusou", "sincronizado"):
        assert words in story
    assert list(tmp_path.glob("chegou-hub-*")) == []


def test_a_story_with_a_gap_fails_and_names_the_gap(start: Start) -> None:
    """Without the log bridge the logs are what is missing, and the exit code says so."""
    process = start("--once", "--deadline=8", env={"CHEGOU_OTEL_LOGS": "false"})

    output, _ = process.communicate(timeout=110)

    assert process.returncode == 1
    assert "lacks: the request's logs, the job's logs" in output


def test_a_port_in_use_is_said(start: Start) -> None:
    """A taken port ends the demo with what to do next."""
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port := free_port()), "--bind", "127.0.0.1"], stderr=subprocess.DEVNULL
    ) as other:
        try:
            assert until(lambda: psutil.Process(other.pid).net_connections(), 10)
            process = start("--once", f"--port={port}")
            output, _ = process.communicate(timeout=60)
        finally:
            other.kill()

    assert process.returncode == 1
    assert f"Port {port} is in use" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_it_leaves_nobody_behind(start: Start, number: signal.Signals, code: int) -> None:
    """It stays up until it is ended, and then all that it started is gone too."""
    process = start()
    wait_until_it_stays(process)
    family = everyone(process)
    names = {Path(part).name for member in family for part in command_line(member)}
    assert {"gunicorn", "rq", "logistica.py"} <= names

    process.send_signal(number)

    assert code == process.wait(30)
    assert until(lambda: not [member for member in family if lives(member)], 20)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_empty_story_lacks_every_chapter(chapter: str) -> None:
    """No chapter is there by itself."""
    assert chapter in missing(Story([], []))
