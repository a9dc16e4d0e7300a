"""The `chegou-otel` command: one module per subcommand, imported only when it is asked for.

A command module has `HELP: str`, `configure(parser)` and `run(args) -> int`.
"""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from chegou_otel._version import __version__

COMMANDS = {
    "run": "chegou_otel.cli.run",
    "dev": "chegou_otel.cli.dev",
    "find": "chegou_otel.cli.find",
    "doctor": "chegou_otel.cli.doctor",
    "rq-reporter": "chegou_otel.cli.rq_reporter",
    "off": "chegou_otel.cli.off",
    "on": "chegou_otel.cli.on",
}

# The extra that brings a library which a command may miss.
EXTRAS = {
    "django": "django",
    "google": "dev",
    "grpc": "dev",
    "jinja2": "dev",
    "opentelemetry.proto": "dev",
    "redis": "rq",
    "rq": "rq",
}

USAGE_ERROR = 2
INTERRUPTED = 130


class Command(Protocol):
    """What a command module has."""

    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the result is the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else USAGE_ERROR
    if name in ("-V", "--version"):
        print(f"chegou-otel {__version__}")
        return 0
    if name not in COMMANDS:
        return _unknown(name)
    try:
        return _dispatch(name, arguments[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("chegou_otel."):
            raise  # a bug of ours: no package to install for that
        return _missing(name, error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _dispatch(name: str, arguments: list[str]) -> int:
    command = _load(name)
    parser = argparse.ArgumentParser(prog=f"chegou-otel {name}", description=command.HELP)
    command.configure(parser)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as error:  # argparse has printed its help or what is wrong
        return error.code if isinstance(error.code, int) else USAGE_ERROR
    return command.run(args)


def _load(name: str) -> Command:
    return cast("Command", importlib.import_module(COMMANDS[name]))


def _overview() -> str:
    lines = ["usage: chegou-otel <command> [options]", "", "One call, one story: observability for Django and RQ.", ""]
    lines += [f"  {name:<12} {_help(name)}" for name in COMMANDS]
    lines += ["", "`chegou-otel <command> --help` tells more; `chegou-otel --version` tells the version."]
    return "\n".join(lines)


def _help(name: str) -> str:
    try:
        return _load(name).HELP
    except ModuleNotFoundError as error:
        return f"(needs {_install(error)})"


def _unknown(name: str) -> int:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean `chegou-otel {close[0]}`?" if close else ""
    print(f"chegou-otel: no command {name!r}{hint}\n\n{_overview()}", file=sys.stderr)
    return USAGE_ERROR


def _missing(name: str, error: ModuleNotFoundError) -> int:
    print(f"chegou-otel {name} needs {error.name}, which is not installed: {_install(error)}", file=sys.stderr)
    return 1


def _install(error: ModuleNotFoundError) -> str:
    library = error.name or ""
    for prefix, extra in EXTRAS.items():
        if library == prefix or library.startswith(f"{prefix}."):
            return f"pip install 'chegou-otel[{extra}]'"
    return f"pip install {library.partition('.')[0]}" if library else str(error)
