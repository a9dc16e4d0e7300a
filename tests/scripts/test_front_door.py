"""`./run`: what it says when it cannot go on. (That it goes on is shown by the suite running at all.)"""

import argparse
import importlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **(env or {})}
    return subprocess.run([str(ROOT / "run"), *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=60, check=False)


def test_help_names_the_four_commands(tmp_path: Path) -> None:
    """--help works from any folder."""
    result = run("--help", cwd=tmp_path)

    assert result.returncode == 0
    for command in ("demo", "test", "lint", "bench"):
        assert f"\n    {command} " in result.stdout


def test_no_python_says_what_to_install(tmp_path: Path) -> None:
    """An old machine gets the version that is needed and how to name another Python."""
    for tool in ("sh", "dirname"):
        os.symlink(shutil.which(tool) or tool, tmp_path / tool)

    result = run("--help", env={"PATH": str(tmp_path)})

    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "CHEGOU_OTEL_PYTHON=" in result.stderr


@pytest.mark.parametrize("version", ["3.10", "3.13.0", "two"])
def test_impossible_python(version: str) -> None:
    """A version that does not work is refused before anything is made."""
    result = run("test", "--python", version)

    assert result.returncode == 1
    assert "3.11 is the oldest that works" in result.stderr


def test_unwritable_environments_folder(tmp_path: Path) -> None:
    """Where nothing can be written it says which variable to set."""
    (tmp_path / "file").write_text("")

    result = run("test", env={"CHEGOU_OTEL_ENVIRONMENTS": str(tmp_path / "file" / "below")})

    assert result.returncode == 1
    assert "set CHEGOU_OTEL_ENVIRONMENTS" in result.stderr


@pytest.mark.slow
def test_unreachable_index_says_what_to_set(tmp_path: Path) -> None:
    """When nothing can be installed the last lines say what to try."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "uv").write_text("#!/bin/sh\necho no index\nexit 2\n")
    (tools / "uv").chmod(0o755)
    env = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "CHEGOU_OTEL_ENVIRONMENTS": str(tmp_path / "environments"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }

    result = run("demo", "--once", env=env)

    assert result.returncode == 1
    assert "trying with pip" in result.stderr
    assert "set PIP_INDEX_URL" in result.stderr


@pytest.mark.parametrize(
    ("codes", "wanted"),
    [
        ([0, 0], 0),
        ([0, 5], 0),  # nothing measures time
        ([5, 5], 5),
        ([1, 0, 0], 0),  # failed beside others, passed alone
        ([1, 1, 0], 1),
        ([1, 5, 0], 1),  # failed, and nobody noted what
        ([2, 0], 2),  # not collected: nothing to run again
        ([0, 1], 1),
    ],
)
def test_what_fails_beside_others_and_again_by_itself_fails(monkeypatch: pytest.MonkeyPatch, codes: list[int], wanted: int) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    front_door = importlib.import_module("front_door")
    passes = iter(codes)
    monkeypatch.setattr(front_door, "_inside", lambda *_: next(passes))

    args = argparse.Namespace(jobs=4, short=False, passed_on=[])
    assert front_door._pytest(None, args, {}) == wanted
    assert list(passes) == []


@pytest.mark.parametrize(
    ("jobs", "options", "passes"),
    [
        (4, [], ["not alone", "alone"]),
        (1, [], [""]),
        (4, ["-m", "not alone"], [""]),  # no second pass that has nothing to run
    ],
)
def test_those_that_measure_time_come_after_the_others(
    monkeypatch: pytest.MonkeyPatch, jobs: int, options: list[str], passes: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    front_door = importlib.import_module("front_door")
    marks: list[str] = []
    monkeypatch.setattr(front_door, "_inside", lambda _environment, command, _variables: marks.append(command[2]) or 0)

    assert front_door._pytest(None, argparse.Namespace(jobs=jobs, short=False, passed_on=options), {}) == 0
    assert [mark.rpartition(") and ")[2] if ") and " in mark else "" for mark in marks] == passes
