"""Virtual environments of the checkout: made on first use, quick on the second, rebuilt when what they need has changed.

Standard library only: this runs on whatever Python 3.11 or newer the machine has.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = "chegou-otel.stamp"
OLDEST = 11


class SetupError(RuntimeError):
    """An environment could not be made; the message says what to do next."""


def say(text: str) -> None:
    """Progress goes to stderr, so that what a command prints stays clean."""
    print(f"\033[2m·\033[0m {text}" if sys.stderr.isatty() else f"· {text}", file=sys.stderr, flush=True)


def home() -> Path:
    """Where environments are kept: the checkout, or CHEGOU_OTEL_ENVIRONMENTS."""
    return Path(os.environ.get("CHEGOU_OTEL_ENVIRONMENTS") or ROOT)


def requirements(*, extras: Sequence[str] = (), groups: Sequence[str] = (), files: Sequence[str] = ()) -> list[str]:
    """What pyproject.toml's dependencies, extras and groups, and requirement files ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = [*project["project"]["dependencies"]]
    for extra in extras:
        found += project["project"]["optional-dependencies"][extra]
    for group in groups:
        found += [item for item in project["dependency-groups"][group] if isinstance(item, str)]
    for file in files:
        lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
        found += [line for line in lines if line]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Environment:
    """A virtual environment by its name, its Python, and what is in it."""

    name: str
    python: str
    needs: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it is."""
        return home() / f".venv-{self.name}"

    @property
    def executable(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    def stamp(self) -> str:
        """Changes when anything that it was built from changes."""
        parts = [self.python, str(ROOT), (ROOT / "pyproject.toml").read_text(encoding="utf-8"), *self.needs]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def ready(self) -> bool:
        """Whether it is there and up to date."""
        stamp = self.folder / STAMP
        return stamp.exists() and stamp.read_text(encoding="utf-8") == self.stamp() and self.executable.exists()

    def make(self) -> Path:
        """Make it if need be; its Python."""
        with _lock(self.name):
            if not self.ready():
                self._build()
        return self.executable

    def _build(self) -> None:
        start = time.monotonic()
        say(f"making the environment {self.folder.name} (the first time this takes a minute)")
        (self.folder / STAMP).unlink(missing_ok=True)
        uv = find_uv()
        try:
            self._install(uv)
        except SetupError as error:
            if not uv:
                raise
            say(f"uv failed, trying with pip: {str(error).splitlines()[-2]}")
            shutil.rmtree(self.folder, ignore_errors=True)
            self._install(None)
        (self.folder / STAMP).write_text(self.stamp(), encoding="utf-8")
        say(f"ready in {time.monotonic() - start:.0f} s")

    def _install(self, uv: str | None) -> None:
        if self.folder.exists() and not _works(self.executable):
            shutil.rmtree(self.folder)
        if not self.folder.exists():
            create = [uv, "venv", "--quiet", "--python", self.python] if uv else [self.python, "-m", "venv"]
            _do([*create, str(self.folder)], "make a virtual environment", VENV_HINT)
        say("installing " + ", ".join(dict.fromkeys(short_name(need) for need in self.needs)))
        install = _installer(uv, self.executable)
        _do([*install, *self.needs], "install the libraries", INSTALL_HINT)
        _do([*install, "--no-deps", "--editable", str(ROOT)], "install chegou-otel into it", INSTALL_HINT)


VENV_HINT = "On Debian and Ubuntu, `apt install python3-venv` brings what is missing; or install `uv` and run this again."
INSTALL_HINT = (
    "Is the package index reachable? Behind a proxy set HTTPS_PROXY; with an index of your own set PIP_INDEX_URL "
    "(and UV_INDEX_URL). Then run this again: it goes on where it stopped."
)


def short_name(requirement: str) -> str:
    """`redis` of `redis>=4.5`."""
    for sign in "<>=~![; ":
        requirement = requirement.partition(sign)[0]
    return requirement


def _installer(uv: str | None, python: Path) -> list[str]:
    if uv:
        return [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
    return [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def _works(python: Path) -> bool:
    return python.exists() and subprocess.run([str(python), "-c", ""], capture_output=True, check=False).returncode == 0


def _do(command: Sequence[str], what: str, hint: str) -> None:
    """Run a step; what it says is shown only when it fails."""
    result = subprocess.run([*command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        raise SetupError(f"could not {what}: `{' '.join(command)}` said:\n{result.stdout.strip()}\n{hint}")


def find_uv() -> str | None:
    """uv from the PATH, or our own copy from the package index; None means that pip has to do."""
    if found := shutil.which("uv"):
        return found
    tools = home() / ".venv-tools"
    uv = tools / "bin" / "uv"
    with _lock("tools"):
        if not uv.exists():
            steps = ([sys.executable, "-m", "venv", str(tools)], [str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"])
            for step in steps:
                if subprocess.run(step, capture_output=True, check=False).returncode:
                    say("uv is not to be had here: using pip, which is slower")
                    return None
    return str(uv)


def find_python(version: str | None) -> str:
    """A Python of that version (`3.13`), from this process, the PATH, or what uv knows of."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version is None or version == here:
        return getattr(sys, "_base_executable", None) or sys.executable
    if not version.startswith("3.") or not version[2:].isdigit() or int(version[2:]) < OLDEST:
        raise SetupError(f"--python {version}: give a version such as 3.13; 3.{OLDEST} is the oldest that works")
    for candidate in _pythons(version):
        if (found := _identify(candidate)) and found[0] == version:
            return found[1]
    raise SetupError(f"Python {version} is not here: install it (for example `uv python install {version}`) or leave out --python")


def _pythons(version: str) -> Iterator[str]:
    """Where a Python of that version may be, the cheapest look first."""
    if found := shutil.which(f"python{version}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")  # its shims serve only the version that is chosen
    yield from (str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True))
    if uv := find_uv():
        command = [uv, "python", "find", "--no-project", "--no-python-downloads", version]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            yield result.stdout.strip()


def _identify(python: str) -> tuple[str, str] | None:
    """Version and real path of a Python, when it runs."""
    source = "import sys; print('{}.{}'.format(*sys.version_info[:2]), getattr(sys, '_base_executable', sys.executable))"
    result = subprocess.run([python, "-c", source], capture_output=True, text=True, check=False)
    if result.returncode:
        return None
    version, _, path = result.stdout.strip().partition(" ")
    return version, path


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """Two front doors at once make an environment once."""
    try:
        locks = home() / ".venv-locks"
        locks.mkdir(parents=True, exist_ok=True)
        handle = (locks / name).open("w")
    except OSError as error:
        raise SetupError(f"cannot write to {home()} ({error.strerror}): set CHEGOU_OTEL_ENVIRONMENTS to a folder of yours") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def scripts_on_path(executable: Path) -> dict[str, str]:
    """The variables of an activated environment."""
    return {
        "VIRTUAL_ENV": str(executable.parent.parent),
        "PATH": os.pathsep.join([str(executable.parent), os.environ.get("PATH", os.defpath)]),
    }
