"""What these tests share: items of each signal, and runs of a whole program."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from chegou_otel.delivery.frames import Kind, Priority
from tests.delivery.items import log, metric, span

ROOT = Path(__file__).parents[3]


class Telemetry:
    """One signal: how an item of it is recorded, and which items arrived."""

    def __init__(self, kind, item, row, priority):
        self.kind, self.item, self.row, self.priority = kind, item, row, priority

    def record(self, recorder, scope, *names):
        return [recorder.append(self.kind, scope, self.item(name), self.priority) for name in names]

    def arrived(self, receiver):
        found = getattr(receiver, {"traces": "spans"}.get(self.row, self.row))
        return [one.body.string_value if self.row == "logs" else one.name for one, _, _ in list(found)]


SIGNALS = {
    "spans": Telemetry(Kind.SPAN, span, "traces", Priority.NORMAL),
    "logs": Telemetry(Kind.LOG, log, "logs", Priority.INFO),
    "metrics": Telemetry(Kind.METRIC, metric, "metrics", Priority.HIGH),
}


@pytest.fixture(params=SIGNALS)
def telemetry(request):
    return SIGNALS[request.param]


@pytest.fixture
def run(receiver, tmp_path):
    """Runs a program under ``setup()`` to its end; returns what it said."""

    def start(source, **env):
        inherited = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST"))}
        own = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
        begin = "import os, chegou_otel\ntelemetry = chegou_otel.setup('shop', active='always')\n"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", begin + textwrap.dedent(source)],
            env={**inherited, **own, **env}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    return start
