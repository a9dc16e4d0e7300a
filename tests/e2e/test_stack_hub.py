"""The example project through the shipped configuration: one order, from the request to the retried job, in the real servers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests

from tests.e2e import jaeger_search
from tests.e2e.chegou_hub import ROOT, Hub, running
from tests.e2e.jaeger_search import FoundSpan
from tests.e2e.servers import Collector, Jaeger, Prometheus, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

PATIENCE = 60.0


@dataclass(frozen=True)
class Order:
    """One order that was placed, and the programs that are still running."""

    hub: Hub
    correlation_id: str


@pytest.fixture(scope="module")
def order(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Order]:
    with running(tmp_path_factory.mktemp("hub"), endpoint=collector.otlp, env={"OTEL_METRIC_EXPORT_INTERVAL": "1000"}) as hub:
        body = {"cliente": "Ana Souza", "cep": "01310-100", "valor": "189.90"}
        answer = requests.post(f"{hub.url}/pedidos/", json=body, timeout=30)
        answer.raise_for_status()
        yield Order(hub, answer.headers["X-Correlation-ID"])


def of_kind(spans: list[FoundSpan], kind: str) -> list[FoundSpan]:
    return [span for span in spans if span.kind == kind]


@pytest.fixture(scope="module")
def story(order: Order, jaeger: Jaeger, collector: Collector) -> list[FoundSpan]:
    """All spans of the order in Jaeger, once both runs of the job are there."""

    def complete() -> list[FoundSpan] | None:
        spans = jaeger_search.find(jaeger.url, order.correlation_id)
        return spans if len(of_kind(spans, "CONSUMER")) == 2 and of_kind(spans, "SERVER") else None

    def said() -> str:
        there = [f"{span.kind} {span.name}" for span in jaeger_search.find(jaeger.url, order.correlation_id)]
        return f"in Jaeger: {there}\n{collector.said()}"

    return wait_until("the request and both runs of its job in Jaeger", complete, PATIENCE, said)


def test_request_and_job_are_one_trace_under_one_correlation_id(order: Order, story: list[FoundSpan]) -> None:
    assert len({span.trace_id for span in story}) == 1
    assert {span.attributes.get("correlation_id") for span in story} == {order.correlation_id}
    (producer,) = of_kind(story, "PRODUCER")
    assert {span.parent_id for span in of_kind(story, "CONSUMER")} == {producer.span_id}


def test_no_span_is_without_its_parent(story: list[FoundSpan]) -> None:
    known = {span.span_id for span in story}
    roots = [span for span in story if not span.parent_id]
    assert [span.name for span in roots] == ["POST /pedidos/"]
    assert [span.name for span in story if span.parent_id and span.parent_id not in known] == []


def test_the_logs_of_request_and_job_carry_the_id(order: Order, story: list[FoundSpan], collector: Collector) -> None:
    def lines() -> list[str] | None:
        own = [line for line in collector.logs().splitlines() if order.correlation_id in line]
        text = "\n".join(own)
        return own if "recebido" in text and "sincronizado" in text else None

    own = wait_until("the logs of request and job in the collector's file", lines, PATIENCE, collector.said)
    (trace_id,) = {span.trace_id for span in story}
    assert all(trace_id in line for line in own)


def test_the_request_metric_is_in_prometheus(order: Order, prometheus: Prometheus, collector: Collector) -> None:
    expression = 'http_server_request_duration_seconds_count{http_route="/pedidos/",http_request_method="POST"}'

    series = wait_until("the request metric in Prometheus", lambda: prometheus.query(expression), PATIENCE, collector.said)

    assert sum(float(each["value"][1]) for each in series) == 1
    assert all(each["metric"]["http_response_status_code"].startswith("2") for each in series)
    assert all("correlation_id" not in each["metric"] for each in series)


def test_find_prints_the_story_from_jaeger(order: Order, story: list[FoundSpan], jaeger: Jaeger) -> None:
    command = [sys.executable, "-m", "chegou_otel", "find", order.correlation_id, "--jaeger", jaeger.url]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env={**os.environ}, check=False)

    assert found.returncode == 0, found.stdout + found.stderr
    for words in ("POST /pedidos/", "send default", "process default"):
        assert words in found.stdout
