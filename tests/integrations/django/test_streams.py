"""Streaming: span, duration and gauge last until the last byte, or until the client is gone."""

import socket
import time

import pytest
from serving import until


def active(telemetry):
    metric = telemetry.metrics.get("http.server.active_requests")
    return sum(point.value for point in metric.points) if metric else None


def stream_of(server):
    """The view that suits the server: each kind of content is also served by the other kind, which Django adapts."""
    return "/stream/" if server.kind == "wsgi" else "/astream/"


def test_lasts_until_the_last_byte(server):
    import served_views

    path = stream_of(server)
    with server.raw(path) as connection:
        received = b""
        while b"one" not in received:
            received += connection.recv(65_536)
        until(lambda: served_views.seen)
        assert [s for s in server.telemetry.spans if s.kind == "SERVER"] == []
        assert active(server.telemetry) == 1
        served_views.gate.set()
        while b"three" not in received:
            received += connection.recv(65_536)
        (request,) = server.spans()

    telemetry = server.telemetry
    outer, inner = telemetry.span("outer"), telemetry.span("inner")
    assert (outer.parent_id, inner.parent_id) == (request.span_id, outer.span_id)
    assert request.start <= outer.start <= outer.end <= request.end
    assert telemetry.trace_ids() == {request.trace_id}
    assert "chegou_otel.disconnected" not in request.attributes
    assert active(telemetry) == 0


def test_correlation_in_the_stream(server):
    import served_views

    served_views.gate.set()
    span = server.span(stream_of(server), headers={"X-Correlation-ID": "pedido-0000001"})

    assert served_views.seen == ["pedido-0000001"]
    assert server.answer.headers["X-Correlation-ID"] == "pedido-0000001"
    assert {log.correlation_id for log in server.telemetry.logs if log.body == "streaming"} == {"pedido-0000001"}
    assert span.correlation_id == "pedido-0000001"


@pytest.mark.parametrize("path", ["/stream/", "/astream/"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_content_of_the_other_kind(server, path):
    """Django collects it in a thread or a loop of its own; it is under the request all the same."""
    import served_views

    served_views.gate.set()
    request = server.span(path)

    assert server.answer.body == b"onetwothree"
    assert server.telemetry.span("outer").parent_id == request.span_id
    assert served_views.seen == [request.correlation_id]


def test_duration_is_that_of_the_stream(server):
    import served_views

    path = stream_of(server)
    with server.raw(path) as connection:
        until(lambda: served_views.seen)
        until(lambda: connection.recv(65_536))
        time.sleep(0.2)
        served_views.gate.set()
        (request,) = server.spans()

    (point,) = server.telemetry.metrics["http.server.request.duration"].points
    assert point.sum >= 0.2
    assert (request.end - request.start) / 1e9 >= 0.2
    assert abs((request.end - request.start) / 1e9 - point.sum) < 0.1


def test_failure_in_the_stream(server):
    """The status is out already; the span tells that it went wrong."""
    import served_views

    served_views.gate.set()
    with server.raw(stream_of(server) + "?fail=1") as connection:
        while connection.recv(65_536):
            pass
        (request,) = server.spans()

    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["error.type"] == "served_views.Broken"
    assert request.status == "ERROR"
    assert [event.name for event in request.events] == ["exception"]
    assert "chegou_otel.disconnected" not in request.attributes
    (point,) = server.telemetry.metrics["http.server.request.duration"].points
    assert point.attributes["error.type"] == "served_views.Broken"
    assert active(server.telemetry) == 0


def leave(server, path):
    """Read the beginning, then hang up."""
    with server.raw(path) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert connection.recv(1_024)


def test_disconnect_wsgi(wsgi):
    """The next write fails, and the server closes the response."""
    leave(wsgi, "/endless/")
    (request,) = wsgi.spans()

    assert request.attributes["chegou_otel.disconnected"] is True
    assert request.status == "UNSET"
    assert active(wsgi.telemetry) == 0


def test_disconnect_asgi(asgi):
    """Django stops sending (5.0 and later: at once)."""
    import django

    if django.VERSION < (5, 0):
        pytest.skip("Django 4.2 goes on for a client that is gone")
    leave(asgi, "/aendless/")
    (request,) = asgi.spans()

    assert request.attributes["chegou_otel.disconnected"] is True
    assert request.status == "UNSET"
    assert request.attributes["http.response.status_code"] == 200
    assert active(asgi.telemetry) == 0


def test_disconnect_asgi_before_the_answer(asgi):
    import django

    if django.VERSION < (5, 0):
        pytest.skip("Django 4.2 goes on for a client that is gone")
    with asgi.raw("/aslow/"):
        until(lambda: active(asgi.telemetry))
    (request,) = asgi.spans()

    assert request.attributes["chegou_otel.disconnected"] is True
    assert "http.response.status_code" not in request.attributes
    assert request.status == "UNSET"
    assert active(asgi.telemetry) == 0
    (point,) = asgi.telemetry.metrics["http.server.request.duration"].points
    assert "error.type" not in point.attributes


def test_disconnect_during_upload(asgi):
    with socket.create_connection(("127.0.0.1", asgi.port)) as connection:
        connection.sendall(b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nxxx")
        until(lambda: active(asgi.telemetry))
    (request,) = asgi.spans()

    assert request.attributes["chegou_otel.disconnected"] is True
    assert active(asgi.telemetry) == 0


def test_head_of_a_stream(wsgi):
    import served_views

    served_views.gate.set()
    span = wsgi.span("/stream/", "HEAD")

    assert span.attributes["http.response.status_code"] == 200
    assert active(wsgi.telemetry) == 0


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_file(server):
    span = server.span("/file/")

    assert server.answer.body.startswith(b'"""One view for every case."""')
    assert "chegou_otel.disconnected" not in span.attributes
    assert active(server.telemetry) == 0


def test_many_streams_at_once(server):
    """The gauge counts them all, and comes down again."""
    import served_views

    connections = [server.raw(stream_of(server)) for _ in range(5)]
    for connection in connections:
        connection.__enter__()
    until(lambda: active(server.telemetry) == 5)
    served_views.gate.set()
    server.spans(5)
    for connection in connections:
        connection.__exit__(None, None, None)
    assert active(server.telemetry) == 0
