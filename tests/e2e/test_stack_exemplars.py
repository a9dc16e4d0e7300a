"""From a point in the real Prometheus to the trace in the real Jaeger."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.e2e import jaeger_search
from tests.e2e.servers import Collector, Jaeger, Prometheus, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.servers

STORY = "exemplars-0815"
PROGRAM = f"""
import chegou_otel
telemetry = chegou_otel.setup("hub-exemplars", active="always")
from opentelemetry import metrics, trace
from chegou_otel.signals.encoding import Static
durations = telemetry.runtime.metrics.histogram("http.server.request.duration").series((("http.route", "/pedidos/"),))
span = telemetry.runtime.tracer("hub").begin(Static("GET /pedidos/", 1), {{"correlation_id": "{STORY}"}})
with trace.use_span(span):
    durations.record(0.3, span)
    metrics.get_meter("hub").create_counter("hub.orders", "{{order}}").add(1)
span.end()
print(format(span.get_span_context().trace_id, "032x"))
assert telemetry.flush(20)
"""


def test_a_bucket_and_a_counter_lead_to_the_trace(collector: Collector, prometheus: Prometheus, jaeger: Jaeger, tmp_path: Path) -> None:
    env = {
        **{key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_"))},
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp,
        "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path),
    }
    trace_id = subprocess.run([sys.executable, "-c", PROGRAM], env=env, check=True, capture_output=True, text=True).stdout.strip()

    def exemplars(name: str) -> list[dict[str, Any]]:
        query = {"query": f'{name}{{service_name="hub-exemplars"}}', "start": "0", "end": "4102444800"}
        answer = requests.get(f"{prometheus.url}/api/v1/query_exemplars", params=query, timeout=5).json()
        return [exemplar for series in answer["data"] for exemplar in series["exemplars"]]

    (bucket,) = wait_until("an exemplar", lambda: exemplars("http_server_request_duration_seconds_bucket"), said=collector.said)
    (counted,) = wait_until("an exemplar", lambda: exemplars("hub_orders_total"), said=collector.said)
    assert (float(bucket["value"]), bucket["labels"]["trace_id"]) == (0.3, trace_id)
    assert (float(counted["value"]), counted["labels"]["trace_id"]) == (1.0, trace_id)
    (span,) = wait_until("the span in Jaeger", lambda: jaeger_search.find(jaeger.url, STORY), said=collector.said)
    assert span.trace_id == bucket["labels"]["trace_id"]
