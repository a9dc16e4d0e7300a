"""What the settings change."""

import pytest
from opentelemetry import baggage

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
BOTH = pytest.mark.parametrize("kind", ["wsgi", "asgi"])


@BOTH
def test_excluded_paths(serve, kind):
    """No span, no metric, nothing below; the correlation ID works."""
    with serve(kind, excluded_paths=("/health/", "/static/*")) as server:
        answer = server.call("/health/", headers={"X-Correlation-ID": "pedido-0000001"})
        server.call("/static/x/y.css")
        counted = server.span("/ok/")

        assert answer.headers["X-Correlation-ID"] == "pedido-0000001"
        assert b"pedido-0000001" in answer.body
        assert counted.name == "GET /ok/"
        assert server.telemetry.span_names() == ["GET /ok/"]
        (point,) = server.telemetry.metrics["http.server.request.duration"].points
        assert point.attributes["http.route"] == "/ok/"


@BOTH
def test_nothing_below_an_excluded_path(serve, kind):
    with serve(kind, excluded_paths=("/health/",)) as server:
        server.call("/health/")
        assert server.telemetry.spans == []


def test_exclusion_is_exact(serve):
    with serve(excluded_paths=("/ok",)) as server:
        assert server.span("/ok/").name == "GET /ok/"


@BOTH
def test_response_header(serve, kind):
    with serve(kind, response_header="X-Pedido") as server:
        span = server.span("/ok/")
        assert server.answer.headers["X-Pedido"] == span.correlation_id
        assert "X-Correlation-ID" not in server.answer.headers


def test_no_response_header(serve):
    with serve(response_header="") as server:
        assert server.span("/ok/").correlation_id
        assert "X-Correlation-ID" not in server.answer.headers


@BOTH
def test_headers_are_captured_when_asked_for(serve, kind):
    with serve(
        kind,
        capture_request_headers=("X-Tenant", "Authorization", "Cookie"),
        capture_response_headers=("X-Answer", "Content-Type", "Set-Cookie", "X-Absent"),
    ) as server:
        span = server.span(
            "/cookie/", headers={"X-Tenant": "acme", "Authorization": "Bearer hunter2", "Cookie": "sessionid=hunter2", "X-Other": "hunter3"}
        )

        assert span.attributes["http.request.header.x-tenant"] == ["acme"]
        assert span.attributes["http.response.header.x-answer"] == ["42"]
        assert span.attributes["http.response.header.content-type"] == ["text/html; charset=utf-8"]
        assert "http.response.header.x-absent" not in span.attributes
        server.telemetry.assert_no_leak("hunter2", "hunter3")


def test_no_headers_by_default(server):
    span = server.span("/cookie/", headers={"X-Tenant": "acme", "Authorization": "Bearer hunter2"})

    assert not [key for key in span.attributes if ".header." in key]
    server.telemetry.assert_no_leak("hunter2", "acme")


@BOTH
def test_client_address(serve, kind):
    with serve(kind, client_address=True) as server:
        assert server.span("/ok/").attributes["client.address"] == "127.0.0.1"


@BOTH
def test_trusted_peers_are_continued(serve, kind):
    with serve(kind, trust_from=("127.0.0.0/8",)) as server:
        span = server.span("/ok/", headers={"traceparent": PARENT, "tracestate": "v=1"})

    assert (span.trace_id, span.parent_id) == (TRACE, "b7ad6b7169203331")
    assert span.links == ()


def test_others_are_linked(server):
    span = server.span("/ok/", headers={"traceparent": PARENT, "baggage": "user.id=admin"})

    assert span.trace_id != TRACE
    assert span.parent_id == ""
    assert [link.trace_id for link in span.links] == [TRACE]


@BOTH
@pytest.mark.parametrize(("trusted", "seen"), [((), {}), (("127.0.0.1",), {"user.id": "admin"})])
def test_baggage(serve, kind, trusted, seen, monkeypatch):
    import served_views

    found = []
    monkeypatch.setattr(served_views, "get_correlation_id", lambda: found.append(dict(baggage.get_all())))
    with serve(kind, trust_from=trusted) as server:
        server.call("/story/", headers={"baggage": "user.id=admin"})

    assert found == [seen]


@BOTH
def test_without_recording(serve, kind):
    """traces=False: no spans; the correlation ID and the metrics are there."""
    with serve(kind, traces=False) as server:
        assert server.call("/ok/").headers["X-Correlation-ID"]
        assert server.telemetry.spans == []
