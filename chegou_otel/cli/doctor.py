"""`chegou-otel doctor`: run a request, a forked job and a log line through the real configuration, and say what arrived."""

import argparse
import contextlib
import json
import sys
import time

HELP = "say what is wired, skipped and lost, and whether telemetry arrives"

HEALTHY, PROBLEMS = 0, 1
SECONDS = 15.0
_AT_LEAST = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Which configuration, and how long."""
    parser.add_argument(
        "--settings", metavar="MODULE", help="Django's settings (default: $DJANGO_SETTINGS_MODULE, else what manage.py says)"
    )
    parser.add_argument("--timeout", type=_seconds, default=SECONDS, metavar="SECONDS", help="for everything (default: %(default)g)")
    parser.add_argument("--json", action="store_true", help="print JSON: facts, findings, healthy")
    parser.epilog = "exit code: 0 healthy, 1 something is to be fixed, 2 wrong usage"


def _seconds(text: str) -> float:
    seconds = float(text)
    if not _AT_LEAST <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{_AT_LEAST:g} or more seconds")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Examine, print, and tell by the exit code."""
    from chegou_otel.cli.diagnosis import backend, findings, patient, screen

    deadline = time.monotonic() + args.timeout
    facts = patient.examine(args.settings, args.timeout)
    facts["backend"] = backend.confirm(facts, deadline - time.monotonic())
    found = findings.findings(facts)
    healthy = not any(each.problem for each in found)
    if args.json:
        print(json.dumps({"healthy": healthy, "findings": [each._asdict() for each in found], **facts}, indent=2))
    else:
        with contextlib.suppress(AttributeError, ValueError):  # a terminal that lacks a sign shows a question mark
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        print(screen.render(facts, found))
    return HEALTHY if healthy else PROBLEMS
