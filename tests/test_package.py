"""The wheel: what is in it, what is not, and that it works where the checkout is not."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import chegou_otel
from tests.delivery.receiver import Receiver

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SEND = """
import pathlib, sys, chegou_otel
from opentelemetry import trace
assert "site-packages" in chegou_otel.__file__, chegou_otel.__file__
telemetry = chegou_otel.setup("packaged")
with chegou_otel.use_correlation_id("from-the-wheel"), trace.get_tracer("x").start_as_current_span("hello"):
    pass
assert telemetry.flush(), "not sent"
never = ("chegou_otel.local", "chegou_otel.cli", "chegou_otel.testing", "google.protobuf", "grpc", "jinja2", "opentelemetry.proto", "asyncio")
found = [name for name in sys.modules if name.startswith(never)]
assert not found, found
"""


def run(*command, cwd, check=True, **variables):
    """In a clean environment: nothing of ours, no PYTHONPATH, a home of its own."""
    env = {
        key: text
        for key, text in os.environ.items()
        if not key.startswith(("OTEL_", "CHEGOU_", "PYTHON", "PYTEST", "DJANGO", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**env, "HOME": str(cwd), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done


def environment(folder):
    """A fresh virtual environment that sees nothing of this one's."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder far from the checkout."""
    folder = tmp_path_factory.mktemp("package")
    assert ROOT not in folder.parents
    return folder


@pytest.fixture(scope="module")
def wheel(place):
    """Built from a copy, so that what lies about in a checkout (caches, spools) is in neither."""
    source = place / "source"
    shutil.copytree(ROOT / "chegou_otel", source / "chegou_otel", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    (source / "tests").mkdir()
    (source / "tests" / "test_nothing.py").touch()
    pip = environment(place / "building") / "pip"
    run(pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", place, source, cwd=place)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(place, wheel):
    """The scripts' folder of an environment with the wheel and no extra."""
    scripts = environment(place / "bare")
    run(scripts / "pip", "install", "--quiet", wheel, cwd=place)
    return scripts


@pytest.fixture
def elsewhere(tmp_path):
    return tmp_path


def test_versions_have_one_source():
    assert PROJECT["dynamic"] == ["version"]
    assert (ROOT / "chegou_otel" / "_version.py").read_text(encoding="utf-8").count(chegou_otel.__version__) == 1
    told = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert told[0] == chegou_otel.__version__


@pytest.mark.slow
def test_the_wheel_has_everything_and_no_more(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(ROOT)) for path in (ROOT / "chegou_otel").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert names - sources == {name for name in names if ".dist-info/" in name and not name.startswith("chegou_otel/")}
    assert sources - names == set()
    for wanted in ("py.typed", "local/templates/story.html", "local/static/page.css", "cli/bootstrap/sitecustomize.py"):
        assert f"chegou_otel/{wanted}" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_s_metadata(wheel):
    with zipfile.ZipFile(wheel) as opened:
        (path,) = (name for name in opened.namelist() if name.endswith("/METADATA") and name.startswith("chegou_otel-"))
        told = email.message_from_bytes(opened.read(path))
        entry_points = opened.read(path.replace("METADATA", "entry_points.txt")).decode()
    assert told["Version"] == chegou_otel.__version__
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    assert set(told.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    needed = {re.split(r"[^\w-]", each)[0] for each in told.get_all("Requires-Dist") if "extra ==" not in each}
    assert needed == {"opentelemetry-api", "opentelemetry-sdk"}
    assert "chegou-otel = chegou_otel.cli:main" in entry_points
    assert "[pytest11]" in entry_points


@pytest.mark.slow
def test_without_extras_it_sends_a_span(bare, elsewhere):
    receiver = Receiver()
    try:
        run(bare / "python", "-c", SEND, cwd=elsewhere, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        assert receiver.names() == ["hello"]
    finally:
        receiver.close()


@pytest.mark.slow
def test_importing_it_imports_nothing_else(bare, elsewhere):
    code = "import sys, chegou_otel; print(sorted({name.partition('.')[0] for name in sys.modules} & {'opentelemetry', 'logging', 'django', 'rq'}))"
    assert run(bare / "python", "-c", code, cwd=elsewhere).stdout.strip() == "[]"


@pytest.mark.slow
def test_the_command_without_extras(bare, elsewhere):
    assert run(bare / "chegou-otel", "--version", cwd=elsewhere).stdout.strip() == f"chegou-otel {chegou_otel.__version__}"
    told = run(bare / "chegou-otel", "--help", cwd=elsewhere).stdout
    for command in ("run", "dev", "find"):
        assert re.search(rf"^  {command} ", told, re.MULTILINE)
    assert run(bare / "python", "-m", "chegou_otel", "--version", cwd=elsewhere).stdout.startswith("chegou-otel ")


@pytest.mark.slow
def test_a_missing_extra_is_one_command_away(bare, elsewhere):
    done = run(bare / "chegou-otel", "dev", "--port=0", cwd=elsewhere, check=False)
    assert done.returncode == 1
    assert "pip install 'chegou-otel[dev]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_find_needs_no_extra(bare, elsewhere):
    done = run(bare / "chegou-otel", "find", "abc", "--url", "http://127.0.0.1:9", cwd=elsewhere, check=False)
    assert done.returncode == 2
    assert "nobody to ask" in done.stderr


@pytest.mark.slow
def test_run_reaches_a_program_that_does_not_know_us(bare, elsewhere):
    """`chegou-otel run` works from the wheel: the bootstrap folder is in it."""
    code = "from opentelemetry import trace; trace.get_tracer('x').start_span('untouched').end()"
    receiver = Receiver()
    try:
        run(bare / "chegou-otel", "run", "--", bare / "python", "-c", code, cwd=elsewhere, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        assert receiver.names() == ["untouched"]
    finally:
        receiver.close()


@pytest.mark.slow
def test_types_are_there_for_those_who_use_it(bare, elsewhere, place):
    """py.typed: mypy believes the annotations of the installed package."""
    mypy = shutil.which("mypy")
    if mypy is None:
        pytest.skip("mypy is not installed")
    (elsewhere / "user.py").write_text("import chegou_otel\nreveal_type(chegou_otel.get_correlation_id())\nchegou_otel.setup(servce='x')\n")
    done = run(mypy, "--python-executable", bare / "python", "--cache-dir", elsewhere / "cache", "user.py", cwd=elsewhere, check=False)
    assert 'Revealed type is "str | None"' in done.stdout.replace("Union[builtins.str, None]", "str | None").replace("builtins.", "")
    assert 'Unexpected keyword argument "servce"' in done.stdout
