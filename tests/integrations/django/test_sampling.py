"""Requests under a sampler."""

import pytest

from tests.delivery.receiver import wait_for

BOTH = pytest.mark.parametrize("kind", ["wsgi", "asgi"])


@BOTH
def test_routes_and_health_checks(serve, kind):
    rules = ["health=0", "GET /users/<int:pk>/=0", "POST /users/*=1", "/ok/=0", "*=1"]
    with serve(kind, sampling=rules) as server:
        for path in ("/ping", "/users/12/", "/ok/"):
            assert server.call(path, headers={"X-Correlation-ID": "pedido-0000001"}).headers["X-Correlation-ID"] == "pedido-0000001"
        assert server.span("/story/" if kind == "wsgi" else "/astory/").name

        def routes():
            return {point.attributes.get("http.route") for point in server.telemetry.metrics["http.server.request.duration"].points}

        # A request is measured when its thread is done, which may be after its client has the answer, and the next one's.
        wait_for(lambda: {"/users/<int:pk>/", "/ok/"} <= routes(), 10, "metrics, which are never sampled")
        assert {span.name for span in server.telemetry.spans if span.kind == "SERVER"} == {f"GET /{'a' * (kind == 'asgi')}story/"}


@BOTH
def test_what_fails_is_told_alone(serve, kind):
    path = "/fail/" if kind == "wsgi" else "/afail/"
    with serve(kind, sampling=["errors=1", "*=0"]) as server:
        server.call("/ok/")
        span = server.span(path)
        assert server.telemetry.span_names() == [f"GET {path}"]
        assert span.attributes["chegou_otel.unsampled"] is True
        assert span.attributes["http.response.status_code"] == 500
        assert span.attributes["http.route"] == path
        assert [event.name for event in span.events] == ["exception"]


@BOTH
def test_the_correlation_id_stays_in_logs_of_unsampled_requests(serve, kind):
    path = "/story/" if kind == "wsgi" else "/astory/"
    with serve(kind, sampling=["*=0"]) as server:
        server.call(path, headers={"X-Correlation-ID": "pedido-0000001"})
        assert server.telemetry.spans == []
        assert {log.correlation_id for log in server.telemetry.logs} == {"pedido-0000001"}
        assert len({log.trace_id for log in server.telemetry.logs}) == 1


def test_a_trusted_parent_is_followed_unless_a_rule_names_the_route(serve):
    trace = "0af7651916cd43dd8448eb211c80319c"
    with serve(sampling=["/users/*=0", "*=0"], trust_from=["127.0.0.1"]) as server:
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        server.call("/users/1/", headers=headers)
        assert server.span("/ok/", headers=headers).trace_id == trace
        server.call("/ok/", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-00"})
        assert [(span.name, span.trace_id) for span in server.telemetry.spans if span.kind == "SERVER"] == [("GET /ok/", trace)]
