"""The shipped configuration, run by the real collector, Jaeger and Prometheus."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.e2e import handmade, jaeger_search, servers
from tests.e2e.servers import Collector, Jaeger, Prometheus, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.servers

MASKED = "****"
SECRETS = {  # attribute → what must not be stored of it; None: nothing of the value
    "note": "529.982.247-25",
    "supplier": "12.ABC.345/01DE-35",
    "payment": "4111 1111 1111 1111",
    "upstream.error": "Bearer c2VjcmV0LXRva2VuLXZhbHVl",
    "cookie.jar": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMDAwMDAw",
    "form": '{"user": "ana", "senha": "hunter2-canary"}',
    "user.password": "hunter2-canary",
    "http.request.header.authorization": "Basic dXNlcjpjYW5hcnk=",
    "db.connection": "postgresql://chegou:hunter2-canary@db.internal/hub",
}
CANARIES = [
    "529.982.247-25", "12.ABC.345/01DE-35", "4111 1111", "c2VjcmV0", "eyJhbGci", "hunter2-canary", "dXNlcjpjYW5hcnk",
]  # fmt: skip


def harmless() -> dict[str, handmade.Value]:
    """What looks a little like a secret and must pass as it is."""
    return {
        "gen_ai.usage.output_tokens": 1234,
        "order.number": "20261122-0042",
        "url.path": "/pedidos/4111/itens/",
        "messaging.message.id": str(uuid.uuid4()),
        "queue.enqueued_at": 1_763_845_200_000_000_000,
        "code.function.name": "hub.tokens.refresh",
    }


def new_id() -> str:
    return str(uuid.uuid4())


def test_a_story_is_found_in_jaeger_by_its_correlation_id(collector: Collector, jaeger: Jaeger) -> None:
    """Two traces of two services that share one correlation ID, beside one that does not."""
    story, other = new_id(), new_id()
    web = handmade.send_trace(collector.otlp, "hub-web", ["GET /pedidos/", "SELECT pedidos"], {"correlation_id": story})
    worker = handmade.send_trace(collector.otlp, "hub-worker", ["process default"], {"correlation_id": story})
    handmade.send_trace(collector.otlp, "hub-web", ["GET /outro/"], {"correlation_id": other})

    def both() -> list[jaeger_search.FoundSpan] | None:
        spans = jaeger_search.find(jaeger.url, story)
        return spans if len(spans) >= 3 else None

    spans = wait_until("the story in Jaeger", both, said=collector.said)

    assert {web, worker} == {span.trace_id for span in spans}
    assert sorted(span.name for span in spans) == ["GET /pedidos/", "SELECT pedidos", "process default"]
    assert {"hub-web", "hub-worker"} == {span.service for span in spans}


def test_grpc_comes_in_too(collector: Collector, jaeger: Jaeger) -> None:
    story = new_id()
    handmade.send_trace_by_grpc(collector.grpc, "hub-grpc", ["GET /pedidos/"], {"correlation_id": story})

    wait_until("the span in Jaeger", lambda: jaeger_search.find(jaeger.url, story), said=collector.said)


def test_what_the_source_let_through_is_masked_before_it_is_stored(collector: Collector, jaeger: Jaeger) -> None:
    story, innocent = new_id(), harmless()
    message = "payment refused for 529.982.247-25: token=hunter2-canary"
    values: dict[str, handmade.Value] = {"correlation_id": story, **SECRETS, **innocent}
    values["http.request.header.x-forwarded"] = ["10.0.0.1", "cpf=529.982.247-25"]
    handmade.send_trace(collector.otlp, "hub-leaky", ["POST /pagamentos/"], values, status_message=message)

    (span,) = wait_until("the span in Jaeger", lambda: jaeger_search.find(jaeger.url, story), said=collector.said)

    stored = repr(span)
    assert [canary for canary in CANARIES if canary in stored] == []
    for key in [*SECRETS, "http.request.header.x-forwarded"]:
        assert MASKED in str(span.attributes[key]), key
    assert MASKED in str(span.attributes["status.message"])
    assert story == span.attributes["correlation_id"]
    assert {key: str(value) for key, value in innocent.items()} == {key: str(span.attributes[key]) for key in innocent}


def test_logs_come_out_masked_with_their_correlation_id(collector: Collector) -> None:
    story = new_id()
    handmade.send_log(collector.otlp, "hub-leaky", "cliente 529.982.247-25 password=hunter2-canary", {"correlation_id": story, **SECRETS})

    def line() -> str | None:
        return next((each for each in collector.logs().splitlines() if story in each), None)

    written = wait_until("the log record in the file", line, said=collector.said)

    assert [canary for canary in CANARIES if canary in written] == []
    assert f"cliente {MASKED}" in written


def test_a_request_metric_reaches_prometheus_under_its_usual_name(collector: Collector, prometheus: Prometheus) -> None:
    service = f"hub-{uuid.uuid4().hex[:8]}"
    route: dict[str, handmade.Value] = {"http.request.method": "GET", "http.route": "/pedidos/", "http.response.status_code": 200}
    handmade.send_histogram(collector.otlp, service, "http.server.request.duration", "s", [0.02, 0.3], route)
    expression = f'http_server_request_duration_seconds_count{{service_name="{service}"}}'

    (series,) = wait_until("the series in Prometheus", lambda: prometheus.query(expression), said=collector.said)

    assert series["value"][1] == "2"
    labels = series["metric"]
    assert (labels["http_route"], labels["http_response_status_code"], labels["deployment_environment_name"]) == (
        "/pedidos/",
        "200",
        "test",
    )
    (bucket,) = prometheus.query(f'http_server_request_duration_seconds_bucket{{service_name="{service}",le="0.1"}}')
    assert bucket["value"][1] == "1"


def test_the_collector_tells_about_itself(collector: Collector) -> None:
    handmade.send_trace(collector.otlp, "hub-web", ["GET /"], {"correlation_id": new_id()})

    def counted() -> bool:
        return "otelcol_receiver_accepted_spans" in collector.own_metrics() and "otelcol_exporter_queue_size" in collector.own_metrics()

    wait_until("the collector's own metrics", counted, said=collector.said)


def test_jaeger_knows_the_senders_and_not_itself(collector: Collector, jaeger: Jaeger) -> None:
    handmade.send_trace(collector.otlp, "hub-web", ["GET /"], {"correlation_id": new_id()})
    known = wait_until("a service in Jaeger", lambda: jaeger_search.services(jaeger.url), said=collector.said)
    assert [name for name in known if not name.startswith(("hub", "chegou"))] == []


def test_the_configuration_uses_no_deprecated_name(collector: Collector, jaeger: Jaeger) -> None:
    """Both warn at start about names and settings that go away."""
    for server in (collector, jaeger):
        assert [line for line in server.log.read_text().splitlines() if "deprecat" in line.lower()] == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_was_accepted_survives_an_outage_and_a_restart_of_the_collector(
    tmp_path: Path, jaeger: Jaeger, prometheus: Prometheus
) -> None:
    """Jaeger is away, the collector takes the trace, is stopped, starts again, and Jaeger gets it."""
    story, folder = new_id(), tmp_path / "collector"
    (nobody,) = servers.free_ports(1)
    with servers.start_collector(folder, jaeger=f"127.0.0.1:{nobody}", prometheus=prometheus.otlp) as first:
        handmade.send_trace(first.otlp, "hub-outage", ["GET /pedidos/"], {"correlation_id": story})
    assert jaeger_search.find(jaeger.url, story) == []

    with servers.start_collector(folder, jaeger=jaeger.otlp_grpc, prometheus=prometheus.otlp) as second:
        wait_until("the kept trace in Jaeger", lambda: jaeger_search.find(jaeger.url, story), 60, second.said)


@pytest.mark.slow
def test_traces_survive_a_restart_of_jaeger(tmp_path: Path, prometheus: Prometheus) -> None:
    story, folder = new_id(), tmp_path / "jaeger"
    with (
        servers.start_jaeger(folder) as first,
        servers.start_collector(tmp_path / "collector", jaeger=first.otlp_grpc, prometheus=prometheus.otlp) as collector,
    ):
        handmade.send_trace(collector.otlp, "hub-restart", ["GET /pedidos/"], {"correlation_id": story})
        wait_until("the trace in Jaeger", lambda: jaeger_search.find(first.url, story), said=collector.said)

    with servers.start_jaeger(folder) as second:
        assert [span.name for span in jaeger_search.find(second.url, story)] == ["GET /pedidos/"]
