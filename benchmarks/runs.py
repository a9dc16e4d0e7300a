"""One measured process: a variant in its environment, with servers beside it."""

import itertools
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, Environment
from benchmarks.servers import Servers

WORKLOAD = ROOT / "benchmarks" / "workload"
DEADLINE = 300
_numbers = itertools.count(1)


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


def run(variant: Variant, servers: Servers, script: str, *arguments: object) -> Outcome:
    """Start a fresh process, wait for its end, ask the receiver."""
    name = f"run{next(_numbers)}"
    env = {**_inherited(), **_environ(variant, servers, name), **variant.variables}
    command = [str(variant.environment.python), str(WORKLOAD / script), *map(str, arguments)]
    process = subprocess.run(command, env=env, cwd=servers.folder, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if process.returncode:
        raise RunError(
            f"{variant.name}: {' '.join(command)} exited {process.returncode}:\n{process.stdout[-1000:]}{process.stderr[-4000:]}"
        )
    return Outcome(json.loads(process.stdout.splitlines()[-1]), servers.arrived(name))


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
        "BENCH_DATABASE": str(servers.folder / "shop.sqlite3"),
        "BENCH_REDIS": str(servers.redis_port),
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
