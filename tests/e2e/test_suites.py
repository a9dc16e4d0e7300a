"""Django's and RQ's own tests give the same outcomes with the package active as without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.suites]


def compare(suite: str, report: Path, *settings: str) -> dict:
    command = [sys.executable, "-m", "tests.e2e.suites", suite, "--json", str(report), *(["--set", *settings] if settings else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    return json.loads(report.read_text())


@pytest.mark.timeout(2400)
def test_djangos_suites_do_not_notice_us(tmp_path):
    """Handlers, WSGI, ASGI, requests, middleware, logging: only tests that compare whole header sets may see our response header."""
    report = compare("django", tmp_path / "report.json")

    assert report["active"]["tests"] == report["bare"]["tests"] >= 300


@pytest.mark.timeout(2400)
def test_djangos_suites_agree_entirely_without_our_response_header(tmp_path):
    """The response header is all that Django's tests can see of us."""
    report = compare("django", tmp_path / "report.json", "CHEGOU_OTEL_RESPONSE_HEADER=")

    assert report["differences"] == []


@pytest.mark.timeout(4800)
def test_rqs_suite_does_not_notice_us(tmp_path):
    """Every worker class, real forks, real Redis, slow tests included."""
    report = compare("rq", tmp_path / "report.json")

    assert report["active"]["tests"] == report["bare"]["tests"] >= 500
