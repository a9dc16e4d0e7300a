"""`python -m benchmarks [overhead] [rq] [footprint] [hanging] [faults] [--rounds N] [--requests N] [--json FILE]`."""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.environments import MakeError
from benchmarks.faults import faults
from benchmarks.footprint import footprint
from benchmarks.hanging import hanging
from benchmarks.jobs import rq
from benchmarks.overhead import HEAVY_REQUESTS, OURS, UPSTREAM, Plan, Say, overhead
from benchmarks.runs import RunError
from benchmarks.servers import Servers, servers

BENCHMARKS: dict[str, Callable[[Servers, Plan, Say], dict[str, Any]]] = {
    "overhead": overhead,
    "rq": rq,
    "footprint": footprint,
    "hanging": hanging,
    "faults": faults,
}


def main(arguments: list[str]) -> int:
    """Run what was asked for; all of it when nothing was."""
    args = _parser().parse_args(arguments)
    plan = Plan(args.rounds, args.requests, args.without)
    report: dict[str, Any] = {"python": platform.python_version(), "machine": platform.platform(), "rounds": plan.rounds}
    try:
        with servers() as running:
            for name in args.names or BENCHMARKS:
                report[name] = BENCHMARKS[name](running, plan, _progress)
    except (RunError, MakeError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    _print_versions(report)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="benchmark", choices=[[], *BENCHMARKS], help=f"{', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of fresh processes (default: 7)")
    parser.add_argument(
        "--requests", type=int, default=HEAVY_REQUESTS, help=f"heavy requests per run (default: {HEAVY_REQUESTS}); others in proportion"
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.add_argument("--without", action="append", default=[], choices=[UPSTREAM, OURS], help="leave a variant out")
    return parser


def _progress(text: str) -> None:
    print(f"· {text}", file=sys.stderr, flush=True)


def _print_versions(report: dict[str, Any]) -> None:
    print(f"\nPython {report['python']}, {report['machine']}")
    for name, numbers in report.items():
        for variant, versions in numbers.get("versions", {}).items() if isinstance(numbers, dict) else ():
            print(f"{name}, {variant}: " + ", ".join(f"{library} {version}" for library, version in versions.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
