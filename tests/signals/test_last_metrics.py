"""What was measured since the last collection, when a process ends while its courier hangs: it lies in the spool, once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.delivery.receiver import HANG, Answer, Receiver, wait_for

PROGRAM = """
import os, sys, time
import chegou_otel
telemetry = chegou_otel.setup("last", active="always", exit_timeout=0.5)
from opentelemetry import metrics, trace
sys.stdin.readline()
with trace.get_tracer("a").start_as_current_span("on its way"):
    pass
print("sent", flush=True)
sys.stdin.readline()
meter = metrics.get_meter("theirs")
if "callback" in sys.argv:
    meter.create_observable_gauge("hangs", [lambda _: time.sleep(60)])
telemetry.runtime.metrics.counter("own.count").series().add(7)
meter.create_counter("their.count").add(5)
began = time.monotonic()
if "atexit" not in sys.argv:
    telemetry.shutdown(0.5)
    os._exit(0 if time.monotonic() - began < 2 else 1)
"""
NEXT = 'import chegou_otel; chegou_otel.setup("last", active="always").flush(10)'


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def totals(receiver):
    found = {}
    for metric, _, _ in list(receiver.metrics):
        if metric.name.startswith(("chegou_otel.", "otel.")):
            continue
        for point in metric.sum.data_points:
            found.setdefault(metric.name, []).append(point.as_int)
    return found


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("way", ["atexit", "shutdown", "callback"])
def test_the_last_metrics_lie_in_the_spool(receiver, tmp_path, way, temporality):
    env = {
        **{key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_"))},
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path), "PYTHONPATH": os.getcwd(),
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
    }  # fmt: skip
    if way != "callback":
        receiver.default = HANG
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, way], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "sent\n"
        wait_for(lambda: receiver.requests, 10, "a request")
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(10) == 0
    finally:
        process.kill()
    receiver.default = Answer()
    assert subprocess.run([sys.executable, "-c", NEXT], env=env, timeout=30, check=False).returncode == 0

    read = sum if temporality == "delta" else max  # a total may be told more than once
    assert {name: read(points) for name, points in totals(receiver).items()} == {"own.count": 7, "their.count": 5}
