"""`chegou-otel run -- <command>`: run a command with telemetry set up, without touching its code.

The command replaces this process (same PID, signals and exit code). A folder with a `sitecustomize` is put in front of
PYTHONPATH, so every Python that the command starts calls `chegou_otel.setup()` before its own first line.
"""

import argparse
import errno
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

HELP = "run a command with telemetry set up, without touching its code"

BOOTSTRAP = Path(__file__).resolve().parent / "bootstrap"
PACKAGE_FOLDER = BOOTSTRAP.parents[2]
UPSTREAM = ("opentelemetry", "instrumentation", "auto_instrumentation")

# Read by bootstrap/sitecustomize.py: whose problems are worth a line, and where chegou_otel lies when it is not installed.
VARIABLE = "_CHEGOU_OTEL_RUN"

USAGE_ERROR = 2
CANNOT_EXECUTE = 126
NOT_FOUND = 127


def configure(parser: argparse.ArgumentParser) -> None:
    """Everything after `--` is the command."""
    parser.usage = "chegou-otel run -- <command> [arguments]"
    parser.epilog = "examples: chegou-otel run -- rq worker default · chegou-otel run -- gunicorn project.wsgi"
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")


def run(args: argparse.Namespace) -> int:
    """Become the command; this returns only when that is not possible."""
    command: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        print("chegou-otel run: no command. Usage: chegou-otel run -- <command> [arguments]", file=sys.stderr)
        return USAGE_ERROR
    program = find_program(command[0])
    if program is None:
        print(f"chegou-otel run: {command[0]}: command not found", file=sys.stderr)
        return NOT_FOUND
    return _become(program, command)


def _become(program: str, command: Sequence[str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, [*command], environment(os.environ))  # noqa: S606 - becoming the command is the point
    except OSError as error:
        print(f"chegou-otel run: {program}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND if error.errno == errno.ENOENT else CANNOT_EXECUTE


def find_program(name: str) -> str | None:
    """As a shell finds it; then beside this Python, whose environment may not be activated."""
    if os.sep in name:
        return name
    return shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """The command's environment: ours, with the bootstrap folder first on PYTHONPATH."""
    inherited = [part for part in base.get("PYTHONPATH", "").split(os.pathsep) if part and Path(part) != BOOTSTRAP]
    path = [str(BOOTSTRAP), *_upstream(inherited), *inherited]
    return {**base, "PYTHONPATH": os.pathsep.join(path), VARIABLE: f"{os.getpid()}:{PACKAGE_FOLDER}"}


def _upstream(inherited: Sequence[str]) -> list[str]:
    """The folder of `opentelemetry-instrument` when that started us: it took itself off the path on its way."""
    loaded = getattr(sys.modules.get("sitecustomize"), "__file__", None)
    folder = Path(loaded).parent if loaded else None
    return [str(folder)] if folder and folder.parts[-3:] == UPSTREAM and str(folder) not in inherited else []
