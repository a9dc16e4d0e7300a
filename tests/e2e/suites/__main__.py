"""The command line of the comparison; exit code 0 means: the same outcomes, test by test."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import network, sources
from .comparing import compare
from .running import Suite


def main(arguments: list[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the suite and its servers are stopped, too
    sources.sdist(chosen.suite)  # before the network goes away
    if chosen.suite == "rq":
        reason = network.own_loopback()
        if reason:
            print(f"{reason}; using this machine's port {network.PORT}", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="suite-"))
    try:
        report = _report(Suite(chosen.suite, folder, dict(setting.split("=", 1) for setting in chosen.set)), chosen)
    finally:
        if chosen.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))
    return 0 if report["ok"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.suites", description=__doc__)
    parser.add_argument("suite", choices=("django", "rq"))
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--compare", dest="mode", action="store_const", const="compare", default="compare", help="bare, then active (the default)"
    )
    mode.add_argument("--without", dest="mode", action="store_const", const="without", help="bare only")
    mode.add_argument("--with", dest="mode", action="store_const", const="with", help="active only")
    mode.add_argument("--control", dest="mode", action="store_const", const="control", help="bare against bare: the suite's own noise")
    parser.add_argument("--only", nargs="+", metavar="LABEL", help="test labels instead of the whole suite")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="environment variables of the active run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder with each run's output")
    return parser


def _report(suite: Suite, chosen: argparse.Namespace) -> dict[str, Any]:
    about = {"suite": suite.name, "version": importlib.metadata.version(suite.name), "python": platform.python_version()}
    print(" ".join(about.values()), flush=True)
    if chosen.mode in ("with", "without"):
        run = suite.run(active=chosen.mode == "with", labels=chosen.only)
        bad = {test: outcome for test, outcome in run.outcomes.items() if "failed" in outcome or "error" in outcome}
        print(json.dumps(run.summary(), indent=1))
        print("\n".join(f"{outcome}: {test}\n{run.details[test]}" for test, outcome in bad.items()))
        if not run.finished:
            print(run.output[-3000:])
        return {**about, **run.summary(), "failures": bad, "details": run.details, "ok": run.finished}
    found = compare(suite, control=chosen.mode == "control", labels=chosen.only)
    for name, run in (("bare", found.bare), ("active", found.active)):
        print(f"{name}: {json.dumps(run.summary())}")
    for difference in found.differences:
        print(difference.line() + ("\n" + difference.detail if difference.verdict == "difference" else ""))
    print("\n".join(found.problems))
    print(f"{len(found.bad)} differences, {len(found.differences) - len(found.bad)} explained, {len(found.problems)} problems")
    return {**about, **found.summary()}


if __name__ == "__main__":
    raise SystemExit(main())
