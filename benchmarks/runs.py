"""One measured process: a variant in its environment, with servers beside it."""

import contextlib
import itertools
import json
import os
import random
import select
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.environments import ROOT, Environment
from benchmarks.servers import Servers

WORKLOAD = ROOT / "benchmarks" / "workload"
DEADLINE = 300
PORTIONS = 10
_numbers = itertools.count(1)
_databases: dict[str, int] = {}
_order = random.Random(0)


class RunError(RuntimeError):
    """A measured process failed, or delivered less than it has to; the message says what."""


@dataclass(frozen=True)
class Variant:
    """What runs: its name in tables, what `workload/variants.py` switches on, and where."""

    name: str
    switch: str
    environment: Environment
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a run said, and what arrived from it."""

    told: dict[str, Any]
    arrived: dict[str, Any]

    def per(self, what: str, count: int | None = None) -> float:
        """Arrived items per request (or per job)."""
        return float(self.arrived[what]) / float(count or self.told["served"])


class Process:
    """A measured process. It answers each order (a line on its standard input) with a line; the last answer is its report."""

    def __init__(self, variant: Variant, servers: Servers, script: str, *arguments: object) -> None:
        self.variant = variant
        self._servers = servers
        self._run = f"run{next(_numbers)}"
        self._said = (servers.folder / f"{self._run}.log").open("w+", encoding="utf-8")
        env = {**_inherited(), **_environ(variant, servers, self._run), **variant.variables}
        command = [str(variant.environment.python), str(WORKLOAD / script), *map(str, arguments)]
        self._process = subprocess.Popen(
            command, env=env, cwd=servers.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )

    def ready(self) -> None:
        """Wait until it is warm."""
        self._answer()

    def go(self, count: int) -> None:
        """Let it do that much."""
        self._order(f"go {count}")

    def finish(self) -> Outcome:
        """Let it flush and report; ask the receiver what arrived."""
        told = json.loads(self._order("end"))
        if self._process.wait(DEADLINE):
            raise self._error()
        outcome = Outcome(told, self._servers.arrived(self._run))
        if corrupt := outcome.arrived["corrupt"]:
            print(f"· {self.variant.name}: {corrupt} of {outcome.arrived['exports']} bodies arrived corrupt", flush=True)
            if self.variant.switch == "ours":
                raise RunError(f"{self.variant.name} sent what cannot be decoded")
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._said.close()

    def _order(self, line: str) -> str:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._error() from None
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], DEADLINE)[0]:
            raise RunError(f"{self.variant.name}: no answer within {DEADLINE} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._error()
        return line

    def _error(self) -> RunError:
        code = self._process.wait(DEADLINE)
        self._said.seek(0)
        return RunError(f"{self.variant.name} exited {code}:\n{self._said.read()[-4000:]}")


def alone(variant: Variant, servers: Servers, count: int, script: str, *arguments: object) -> Outcome:
    """A fresh process does all its work with nobody beside it."""
    with Process(variant, servers, script, *arguments) as process:
        process.ready()
        process.go(count)
        return process.finish()


def in_turn(variants: Sequence[Variant], servers: Servers, count: int, script: str, *arguments: object) -> dict[str, Outcome]:
    """Fresh processes, one of each variant, do their work in small portions, in turn and in an order that changes: what else the
    machine does meanwhile hits all alike."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(Process(variant, servers, script, *arguments)) for variant in variants]
        for process in processes:
            process.ready()
        for portion in range(PORTIONS):
            for process in _order.sample(processes, len(processes)):
                process.go(count * (portion + 1) // PORTIONS - count * portion // PORTIONS)
        return {process.variant.name: process.finish() for process in processes}


def _inherited() -> dict[str, str]:
    """The surrounding environment without what would change a variant."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "CHEGOU_OTEL_", "PYTHON", "BENCH_", "VIRTUAL_ENV"))
    }


def _environ(variant: Variant, servers: Servers, name: str) -> dict[str, str]:
    path = [str(WORKLOAD)] + [str(ROOT)] * (variant.switch == "ours")
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "",
        "DJANGO_SETTINGS_MODULE": "settings",
        "BENCH_VARIANT": variant.switch,
        "BENCH_RUN": name,
        "BENCH_DATABASE": str(servers.folder / "shop.sqlite3"),
        "BENCH_REDIS": str(servers.redis_port),
        "BENCH_REDIS_DATABASE": str(_databases.setdefault(variant.name, len(_databases))),
        "BENCH_PARTNER": str(servers.partner_port),
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": servers.endpoint(name),
        # The stable names for both, so that both send the same attributes and series.
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database",
        "CHEGOU_OTEL_ACTIVE": "always",
        "CHEGOU_OTEL_SPOOL_DIR": str(Path(servers.folder) / "spool" / name),
    }


def fill_database(variant: Variant, servers: Servers) -> None:
    """Create the application's tables, unless another benchmark did."""
    if (servers.folder / "shop.sqlite3").exists():
        return
    env = {**_inherited(), **_environ(variant, servers, "fill")}
    source = "import django; django.setup(); import models; models.fill()"
    subprocess.run([str(variant.environment.python), "-c", source], env=env, cwd=servers.folder, check=True)
