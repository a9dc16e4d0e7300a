"""Runs inside the suite's own process, bare and instrumented alike: one JSON line per outcome, as it happens.

Lines are written with one `os.write` each: work-horses that the suite forks inherit no buffer, and a run that is killed keeps what it had.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import unittest
from typing import Any

_PID = os.getpid()


def _write(line: dict[str, Any]) -> None:
    file = os.open(os.environ["SUITE_OUTCOMES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def record(**line: Any) -> None:
    """Of the suite's own process; what it forks inherits the test runner and has no outcomes."""
    if os.getpid() == _PID:
        _write(line)


def _watch_guard(guard: Any) -> None:
    """What our guard swallows, here and in every fork: the suites cannot see it, and they silence loggers."""
    report = guard.report

    def reported(where: str, error: BaseException) -> Any:
        _write({"failure": where, "detail": "".join(traceback.format_exception(error))[-2000:]})
        return report(where, error)

    guard.report = reported


if "chegou_otel._guard" in sys.modules:
    _watch_guard(sys.modules["chegou_otel._guard"])


# pytest: `-p suite_outcomes`
def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcome = report.outcome if report.when == "call" or report.outcome == "skipped" else f"{report.when} error"
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.outcome == "skipped" else "xpassed"
        record(test=report.nodeid, outcome=outcome, detail=report.longreprtext[-3000:] if report.failed else "")


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        record(test=report.nodeid, outcome="collect error", detail=report.longreprtext[-3000:])


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    if not hasattr(session.config, "workerinput"):
        record(finished=int(exitstatus))


# unittest: the result class of Django's runner, see suite_settings.py
class RecordingResult(unittest.TextTestResult):
    def _note(self, test: Any, outcome: str, error: Any = None) -> None:
        detail = self._exc_info_to_string(error, test)[-3000:] if error else ""  # type: ignore[attr-defined]
        record(test=test.id(), outcome=outcome, detail=detail)

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._note(test, "passed")

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._note(test, "failed", err)

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._note(test, "failed", err)

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._note(test, "skipped")

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._note(test, "xfailed")

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._note(test, "xpassed")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed", err)
