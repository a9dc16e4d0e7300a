"""One run of one suite, bare or instrumented, in its own process: outcomes per test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import network, sink, sources

if TYPE_CHECKING:
    from collections.abc import Mapping

INJECT = Path(__file__).parent / "inject"
DJANGO_LABELS = ("handlers", "wsgi", "asgi", "requests_tests", "middleware", "logging_tests")
SECONDS = {"django": 600.0, "rq": 1800.0}  # deadlines: Django's six take 5 to 12 s, RQ's 4 minutes
EXIT_SECONDS = 30.0  # for a suite's process to leave once its last test is through
OURS = ("OTEL_", "CHEGOU_OTEL_", "PYTHON", "DJANGO_", "PYTEST_", "RQ_", "SUITE_")


@dataclass
class Run:
    outcomes: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)  # in our own code, stopped by its guard: where, and the traceback
    finished: bool = False
    lingered: bool = False
    output: str = ""
    received: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        return dict(Counter(self.outcomes.values()))

    def summary(self) -> dict[str, Any]:
        return {
            "tests": len(self.outcomes),
            "counts": self.counts(),
            "seconds": round(self.seconds, 1),
            "finished": self.finished,
            "lingered": self.lingered,
            "guarded failures": sorted(self.failures),
            "received": self.received,
        }


class Suite:
    """`folder` is scratch space that the caller removes; `settings` are environment variables of the instrumented run."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.settings = dict(settings or {})
        self.folder = folder
        self.tree = sources.unpack(name, folder / "source")
        self.runs = 0
        if name == "rq":
            self._prepare_rq()

    def run(self, *, active: bool, labels: list[str] | None = None) -> Run:
        self.runs += 1
        scratch = self.folder / f"run-{self.runs}"
        scratch.mkdir()
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        (self.folder / "tmp").mkdir()
        with contextlib.ExitStack() as stack:
            environment = _environment(scratch)
            receiver = stack.enter_context(sink.receiving()) if active else None
            if receiver:
                environment |= _activation(receiver.endpoint, scratch) | self.settings
            if self.name == "rq":
                stack.enter_context(network.redis(scratch / "redis"))
            start = [sys.executable, "-m", "chegou_otel", "run", "--"] if receiver else []
            run = _execute([*start, *self._command(labels)], self._where(), environment, scratch, SECONDS[self.name])
            if receiver:
                run.received = receiver.summary()
        return run

    def repeat_labels(self, tests: list[str]) -> list[str] | None:
        """What to run again for these tests. Django's suites are short: all of it, so that what leaks from test to test shows again."""
        return None if self.name == "django" else sorted({test.rpartition("::")[0] or test for test in tests})

    def _where(self) -> Path:
        return self.tree / "tests" if self.name == "django" else self.tree

    def _prepare_rq(self) -> None:
        """RQ's tests without RQ beside them, the installed one is what is tested; their fixed names in /tmp become this run's own."""
        (self.tree / "rq").rename(self.tree / "not-imported")
        for file in (self.tree / "tests").glob("*.py"):
            file.write_text(file.read_text().replace("'/tmp/", f"'{self.folder}/tmp/"))

    def _command(self, labels: list[str] | None) -> list[str]:
        if self.name == "django":
            return [sys.executable, "runtests.py", *(labels or DJANGO_LABELS), "--settings=suite_settings", "--parallel=1", "--noinput"]
        # pytest-timeout would take SIGALRM, which is what RQ's timeouts are made of.
        plugins = ["-p", "suite_outcomes", "-p", "no:timeout", "-p", "no:cacheprovider", "-p", "no:chegou_otel", "-p", "no:randomly"]
        return [sys.executable, "-m", "pytest", "-q", "-ra", *plugins, *(labels or ["tests"])]


def _environment(scratch: Path) -> dict[str, str]:
    """The same for both runs, and free of whatever the caller has set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    binaries = str(Path(sys.executable).parent)
    return clean | {
        "PATH": binaries + os.pathsep + clean.get("PATH", ""),
        "PYTHONPATH": str(INJECT),
        "SUITE_OUTCOMES": str(scratch / "outcomes.jsonl"),
        "RUN_SLOW_TESTS_TOO": "1",
        "COLUMNS": "120",
    }


def _activation(endpoint: str, scratch: Path) -> dict[str, str]:
    """As a user has it; `always`, because a test runner is where the package stays quiet by itself."""
    import chegou_otel

    beside = scratch / "importable"  # the package alone, as it is now: the checkout's `tests` would hide RQ's, and edits would mix versions
    shutil.copytree(next(iter(chegou_otel.__path__)), beside / "chegou_otel", ignore=shutil.ignore_patterns("__pycache__"))
    return {
        "PYTHONPATH": os.pathsep.join([str(INJECT), str(beside)]),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_SERVICE_NAME": "suite",
        "CHEGOU_OTEL_ACTIVE": "always",
        "CHEGOU_OTEL_SPOOL_DIR": str(scratch / "spool"),
    }


def _execute(command: list[str], where: Path, environment: dict[str, str], scratch: Path, seconds: float) -> Run:
    started = time.monotonic()
    with (scratch / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=where, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            lingered = _await(process, scratch / "outcomes.jsonl", started + seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whatever the suite left behind
            process.wait()
    run = Run(seconds=time.monotonic() - started, lingered=lingered, output=(scratch / "output.txt").read_text(errors="replace"))
    _read(scratch / "outcomes.jsonl", run)
    return run


def _await(process: subprocess.Popen[bytes], outcomes: Path, deadline: float) -> bool:
    """Until it exits or its time is over. True when all tests were through and it stayed: multiprocessing joins children at exit for ever."""
    through = None
    while time.monotonic() < min(deadline, (through or deadline) + EXIT_SECONDS):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
            return False
        if through is None and outcomes.exists() and b'{"finished"' in outcomes.read_bytes():
            through = time.monotonic()
    return through is not None


def _read(file: Path, run: Run) -> None:
    for line in file.read_text().splitlines() if file.exists() else []:
        entry = json.loads(line)
        if "failure" in entry:
            run.failures.setdefault(entry["failure"], entry["detail"])
            continue
        if "finished" in entry:
            run.finished = True
            continue
        test, outcome = entry["test"], entry["outcome"]
        before = run.outcomes.get(test)
        # a teardown error follows a pass; several sub-tests may fail
        run.outcomes[test] = outcome if before in (None, outcome) else f"{before} + {outcome}"
        run.details[test] = run.details.get(test, "") + entry["detail"]
