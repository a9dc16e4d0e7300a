"""Django's own test clients: no server calls in, and yet a request is a request."""

import gc
import pickle

import pytest


def test_client(telemetry):
    from django.test import Client

    response = Client().get("/users/7/")

    (span,) = telemetry.spans
    assert span.name == "GET /users/<int:pk>/"
    assert span.kind == "SERVER"
    assert response.headers["X-Correlation-ID"] == span.correlation_id


async def test_async_client(telemetry):
    from django.test import AsyncClient

    response = await AsyncClient().get("/users/7/")

    (span,) = telemetry.spans
    assert span.name == "GET /users/<int:pk>/"
    assert response.headers["X-Correlation-ID"] == span.correlation_id


def test_client_belongs_to_what_is_current(telemetry):
    """A test's own span and correlation ID go on in the request."""
    from django.test import Client
    from opentelemetry import trace

    from chegou_otel import use_correlation_id

    with use_correlation_id("pedido-0000001"), trace.get_tracer("t").start_as_current_span("test"):
        Client().get("/ok/")

    request, test = telemetry.spans
    assert request.parent_id == test.span_id
    assert request.correlation_id == "pedido-0000001"


def test_nested_request(wsgi):
    """A view that calls the application from within: a request inside a request."""
    wsgi.call("/nested/")
    inner, outer = sorted(wsgi.spans(2), key=lambda span: -span.start)

    assert inner.parent_id == outer.span_id
    assert (inner.name, outer.name) == ("GET /ok/", "GET /nested/")
    assert inner.correlation_id == outer.correlation_id


def test_response_of_a_hand_made_call(telemetry):
    """The application is called without a server, and nobody closes the response: the span ends with it."""
    from django.core.wsgi import get_wsgi_application
    from django.test import RequestFactory

    response = get_wsgi_application()(RequestFactory().get("/ok/").environ, lambda *args: None)
    assert telemetry.spans == []
    del response
    gc.collect()

    (span,) = telemetry.spans
    assert span.attributes["http.response.status_code"] == 200
    assert [p.value for p in telemetry.metrics["http.server.active_requests"].points] == [0]


def test_response_can_be_pickled(telemetry):
    from django.core.handlers.base import BaseHandler
    from django.test import RequestFactory

    handler = BaseHandler()
    handler.load_middleware()
    response = handler.get_response(RequestFactory().get("/ok/"))
    response._resource_closers.clear()  # they hold the request, which cannot be pickled
    copy = pickle.loads(pickle.dumps(response))
    copy.close()

    assert copy.content == b"ok"
    assert telemetry.spans == []
    response.close()
    assert len(telemetry.spans) == 1


def test_response_that_is_used_again(telemetry):
    """A response object that a module keeps: every request has its span and its own ID."""
    from django.test import Client

    ids = [Client().get("/shared/").headers["X-Correlation-ID"] for _ in range(3)]

    assert len(set(ids)) == 3
    assert [span.correlation_id for span in telemetry.spans] == ids


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize("path", ["/stream/", "/astream/"])
def test_streams_of_the_client(telemetry, path):
    import served_views
    from django.test import Client

    served_views.gate.set()
    response = Client().get(path)
    assert telemetry.spans == []
    assert b"".join(response) == b"onetwothree"

    request = telemetry.span(f"GET {path}")
    assert telemetry.span("outer").parent_id == request.span_id


def test_shutdown_puts_everything_back():
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.base import BaseHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.signals import got_request_exception
    from django.http.response import HttpResponseBase

    from chegou_otel.testing import capture

    def state():
        names = [(WSGIHandler, "__call__"), (ASGIHandler, "__call__"), (ASGIHandler, "send_response"), (HttpResponseBase, "close")]
        names += [(BaseHandler, n) for n in ("get_response", "get_response_async", "load_middleware", "resolve_request")]
        return [vars(owner)[name] for owner, name in names], len(got_request_exception.receivers)

    before = state()
    with capture():
        assert state() != before
    assert state() == before
