"""The environments that are compared. Libraries that an application uses have the same versions in all of them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.environments import find_uv, requirements, say

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"

# What the measured application itself needs.
APPLICATION = ("redis", "requests", "urllib3")
UPSTREAM = (
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-instrumentation-django",
    "opentelemetry-instrumentation-redis",
    "opentelemetry-instrumentation-requests",
    "opentelemetry-instrumentation-urllib3",
    "opentelemetry-instrumentation-sqlite3",
    "opentelemetry-instrumentation-logging",
    "opentelemetry-instrumentation-rq==0.1.4",
)
RQ_3 = "rq==3.*"
RQ_2 = "rq==2.12.*"  # the newest that upstream's instrumentation runs on


class MakeError(RuntimeError):
    """An environment could not be made; the message holds the installer's words."""


@dataclass(frozen=True)
class Environment:
    """A Python with a set of libraries."""

    name: str
    python: Path

    def versions(self) -> dict[str, str]:
        """What is in it, by name."""
        source = "import importlib.metadata as m, json; print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
        answer = subprocess.run([self.python, "-c", source], capture_output=True, text=True, check=True)
        return dict(sorted(json.loads(answer.stdout).items()))


def bare() -> Environment:
    """Without telemetry, and without OpenTelemetry's API: redis-py imports it wherever it is installed."""
    return _environment("bare", [*APPLICATION, _django(), RQ_3])


def bare_rq2() -> Environment:
    """The same with the RQ that upstream's instrumentation runs on."""
    return _environment("bare-rq2", [*APPLICATION, _django(), RQ_2], like=bare())


def ours() -> Environment:
    """What chegou-otel needs; chegou-otel itself is put on the path from the checkout."""
    return _environment("ours", [*APPLICATION, _django(), RQ_3, *requirements()], like=bare())


def ours_rq2() -> Environment:
    """The same with the older RQ."""
    return _environment("ours-rq2", [*APPLICATION, _django(), RQ_2, *requirements()], like=bare())


def upstream() -> Environment:
    """Upstream OpenTelemetry at the newest set that resolves."""
    return _environment("upstream", [*APPLICATION, _django(), RQ_2, *UPSTREAM], like=bare())


def _django() -> str:
    return "django==6.1.*" if sys.version_info >= (3, 12) else "django==5.2.*"


def _environment(name: str, needs: Sequence[str], like: Environment | None = None) -> Environment:
    """Make it, unless one that was made from the same is there."""
    folder = CACHE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    environment = Environment(name, folder / "bin" / "python")
    pins = _pins(like) if like else []
    stamp = folder / "benchmarks.stamp"
    wanted = hashlib.sha256("\n".join([sys.version, *needs, *pins]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return environment
    say(f"making the environment `{name}`: {', '.join(needs)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    constraints = folder.parent / f"{folder.name}.constraints"
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    _install(folder, environment.python, needs, constraints)
    stamp.write_text(wanted, encoding="utf-8")
    return environment


def _pins(like: Environment) -> list[str]:
    """The versions of another environment, without those that are compared."""
    return [f"{name}=={version}" for name, version in like.versions().items() if name not in ("rq", "pip", "setuptools")]


def _install(folder: Path, python: Path, needs: Sequence[str], constraints: Path) -> None:
    base = getattr(sys, "_base_executable", None) or sys.executable
    if uv := find_uv():
        _do([uv, "venv", "--quiet", "--python", base, str(folder)])
        _do([uv, "pip", "install", "--quiet", "--python", str(python), "--constraint", str(constraints), *needs])
    else:
        _do([base, "-m", "venv", str(folder)])
        _do([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(constraints), *needs])
    # Compiled once now, so that no run pays for it.
    _do([str(python), "-m", "compileall", "-q", str(folder / "lib")], may_fail=True)


def _do(command: Sequence[str], *, may_fail: bool = False) -> None:
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env={**os.environ, "VIRTUAL_ENV": ""}
    )
    if result.returncode and not may_fail:
        raise MakeError(f"`{' '.join(command)}` said:\n{result.stdout.strip()}")
