"""Django's and RQ's own tests give the same outcomes with the package active as without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.suites.comparing import Comparison, Difference, differing, judge, problems
from tests.e2e.suites.known import HEADER_SETS, HEADER_SETTING, known
from tests.e2e.suites.running import Run

ROOT = Path(__file__).resolve().parents[2]


def run(finished: bool = True, spans: dict[str, int] | None = None, **outcomes: str) -> Run:
    return Run(outcomes=outcomes, finished=finished, received={"spans": spans or {}})


@pytest.mark.parametrize(
    ("bare", "active", "verdict"),
    [
        ("passed passed passed passed", "failed failed failed failed", "difference"),
        ("passed passed passed passed", "failed passed failed passed", "difference"),
        ("passed passed passed passed", "absent absent absent absent", "difference"),
        ("passed passed passed passed", "failed passed passed passed", "did not repeat"),
        ("passed passed failed passed", "failed failed failed passed", "flaky bare"),
        ("passed absent absent absent", "failed absent absent absent", "difference"),
        ("passed", "failed", "difference"),
    ],
)
def test_what_repeats_with_us_alone_is_a_difference(bare, active, verdict):
    """One outcome each from the two runs, then three more of each."""
    assert judge(Difference("a test", bare.split(), active.split(), ""), {}) == verdict


def test_header_sets_are_excused_while_our_header_is_on():
    """Without the header, and in RQ's suite, nothing is."""
    assert known("django", {}) == HEADER_SETS
    assert len(HEADER_SETS) == 4
    assert known("django", {HEADER_SETTING: ""}) == known("rq", {}) == {}


def test_every_test_counts_on_both_sides():
    """One that changed, one that only the bare run had, one that only the instrumented run had."""
    found = differing(run(a="passed", b="passed", c="passed"), run(b="failed", c="passed", d="passed"))

    assert [(each.test, each.bare, each.active) for each in found] == [
        ("a", ["passed"], ["absent"]),
        ("b", ["passed"], ["failed"]),
        ("d", ["absent"], ["passed"]),
    ]


def test_a_run_that_sent_nothing_proves_nothing():
    """Equal outcomes count only when spans of the right kind arrived and both runs came to their end."""
    seen = {"CONSUMER chegou_otel.rq": 5, "PRODUCER chegou_otel.rq": 5}

    assert problems("rq", run(a="passed"), run(spans=seen, a="passed"), control=False) == []
    assert len(problems("rq", run(a="passed"), run(a="passed"), control=False)) == 1
    assert len(problems("rq", run(a="passed"), run(spans={"CONSUMER chegou_otel.rq": 5}, a="passed"), control=False)) == 1
    assert len(problems("rq", run(a="passed"), run(finished=False, spans=seen, a="passed"), control=False)) == 1
    guarded = run(spans=seen, a="passed")
    guarded.failures["a hook"] = "its traceback"
    assert len(problems("rq", run(a="passed"), guarded, control=False)) == 1
    assert not Comparison(run(), run(), problems=["any"]).summary()["ok"]


def compare(suite: str, report: Path, *settings: str) -> dict:
    command = [sys.executable, "-m", "tests.e2e.suites", suite, "--json", str(report), *(["--set", *settings] if settings else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    return json.loads(report.read_text())


@pytest.mark.slow
@pytest.mark.suites
@pytest.mark.timeout(2400)
def test_djangos_suites_do_not_notice_us(tmp_path):
    """Handlers, WSGI, ASGI, requests, middleware, logging: only tests that compare whole header sets may see our response header."""
    report = compare("django", tmp_path / "report.json")

    assert report["active"]["tests"] == report["bare"]["tests"] >= 300
    assert {difference["test"] for difference in report["differences"]} == HEADER_SETS.keys()


@pytest.mark.slow
@pytest.mark.suites
@pytest.mark.timeout(2400)
def test_djangos_suites_agree_entirely_without_our_response_header(tmp_path):
    """The response header is all that Django's tests can see of us."""
    report = compare("django", tmp_path / "report.json", f"{HEADER_SETTING}=")

    assert report["differences"] == []


@pytest.mark.slow
@pytest.mark.suites
@pytest.mark.timeout(4800)
def test_rqs_suite_does_not_notice_us(tmp_path):
    """Every worker class, real forks, real Redis, slow tests included."""
    report = compare("rq", tmp_path / "report.json")

    assert report["active"]["tests"] == report["bare"]["tests"] >= 500
