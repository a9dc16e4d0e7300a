"""The source distributions of the installed versions: they carry the tests that wheels leave out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path


def cache() -> Path:
    """Outside the tree: what was fetched once serves every later run."""
    base = (
        os.environ.get("CHEGOU_OTEL_SUITES") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chegou-otel" / "suites"
    )
    folder = Path(base)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sdist(name: str) -> Path:
    """The archive of the version that this interpreter has installed."""
    version = importlib.metadata.version(name)
    found = _archive(name, version)
    if found is None:
        scratch = cache() / f".fetching-{name}-{version}-{os.getpid()}"
        subprocess.run(
            [*_pip(), "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", scratch, f"{name}=={version}"],
            check=True,
            timeout=600,
        )
        for file in scratch.iterdir():
            file.replace(cache() / file.name)
        shutil.rmtree(scratch)
        found = _archive(name, version)
    if found is None:
        raise FileNotFoundError(f"pip fetched no source distribution of {name} {version}")
    return found


def unpack(name: str, folder: Path) -> Path:
    with tarfile.open(sdist(name)) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = (entry for entry in folder.iterdir() if entry.name.lower().startswith(f"{name}-"))
    return tree


def _archive(name: str, version: str) -> Path | None:
    return next((file for file in cache().glob("*.tar.gz") if file.name.lower() == f"{name}-{version}.tar.gz"), None)


def _pip() -> list[str | Path]:
    """This environment's pip; environments made by uv have none, so one is made beside the archives."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    home = cache() / f"pip-{sys.version_info.major}.{sys.version_info.minor}"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True, symlinks=True)
    return [python, "-m", "pip"]
