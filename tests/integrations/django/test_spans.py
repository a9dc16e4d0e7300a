"""The server span: its name, its attributes, its outcome."""

import pytest

from chegou_otel.redaction import REDACTED


def event_names(span):
    return [event.name for event in span.events]


ROUTES = [
    ("/", "/"),
    ("/ok/", "/ok/"),
    ("/users/7/", "/users/<int:pk>/"),
    ("/shop/", "/shop/"),
    ("/shop/orders/7/", "/shop/orders/<int:pk>/"),
    ("/shop/deep/items/a-b/", "/shop/deep/items/<slug:item>/"),
    ("/tenant/acme/orders/7/", "/tenant/<slug:tenant>/orders/<int:pk>/"),
    ("/shop/archive/2026/", "/shop/archive/(?P<year>[0-9]{4})/"),
    ("/articles/2026/page-2/", r"/articles/(?P<year>[0-9]{4})/(?:page-(?P<page>\d+)/)?"),
    ("/pt-br/pedidos/3/", "/pt-br/pedidos/<int:pk>/"),
    ("/en/pedidos/3/", "/en/pedidos/<int:pk>/"),
    ("/called/", "/called/"),
]


@pytest.mark.parametrize(("path", "route"), ROUTES)
def test_route(server, path, route):
    """The span is named by the whole template, from the root."""
    span = server.span(path)

    assert span.name == f"GET {route}"
    assert span.attributes["http.route"] == route
    assert span.attributes["url.path"] == path
    assert span.status == "UNSET"


def test_no_route(server):
    span = server.span("/nothing/here/")

    assert span.name == "GET"
    assert "http.route" not in span.attributes
    assert span.attributes["http.response.status_code"] == 404
    assert span.status == "UNSET"


def test_urlconf_of_the_request(server):
    assert server.span("/other/3/", headers={"X-Wish": "urlconf"}).name == "GET /other/<int:number>/"


def test_script_name(wsgi, telemetry):
    """Below a mount point the route is told from the root of the host, as the semantic conventions want it."""
    from django.core.wsgi import get_wsgi_application
    from serving import Served, serving_wsgi

    inner = get_wsgi_application()

    def mounted(environ, start_response):
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/hub", environ["PATH_INFO"].removeprefix("/hub")
        return inner(environ, start_response)

    with serving_wsgi(mounted) as port:
        span = Served(port, "wsgi", telemetry).span("/hub/users/7/")

    assert span.name == "GET /hub/users/<int:pk>/"
    assert span.attributes["http.route"] == "/hub/users/<int:pk>/"
    assert span.attributes["url.path"] == "/hub/users/7/"


def test_attributes(server):
    """The stable semantic conventions, and nothing that they do not know."""
    span = server.span("/users/7/?page=2&password=hunter2", headers={"User-Agent": "Teste/1.0", "Host": f"localhost:{server.port}"})

    told = dict(span.attributes)
    assert told.pop("correlation_id")
    assert told == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/users/7/",
        "url.query": "page=2&password=REDACTED",
        "server.address": "localhost",
        "server.port": server.port,
        "network.protocol.version": "1.1",
        "user_agent.original": "Teste/1.0",
        "http.route": "/users/<int:pk>/",
        "http.response.status_code": 200,
        "code.function.name": "served_views.ok",
    }
    assert span.kind == "SERVER"
    assert span.parent_id == ""
    assert span.end > span.start


def test_secret_path_parameter(server):
    """A route that calls a part of its path ``token`` says that it is secret."""
    span = server.span("/reset/abc/set-password-4711/")

    assert span.attributes["url.path"] == f"/reset/abc/{REDACTED}/"


@pytest.mark.parametrize(
    ("path", "view"), [("/orders/", "served_views.Orders"), ("/called/", "served_views.Called"), ("/aok/", "served_views.aok")]
)
def test_view_name(server, path, view):
    assert server.span(path).attributes["code.function.name"] == view


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"])
def test_method(server, method):
    span = server.span("/ok/", method)

    assert span.name == f"{method} /ok/"
    assert span.attributes["http.request.method"] == method
    assert "http.request.method_original" not in span.attributes


def test_unknown_method(server):
    span = server.span("/ok/", "BREW")

    assert span.name == "HTTP /ok/"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


def test_upload(server):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\n'
        + b"x" * 3_000_000
        + b"\r\n--b--\r\n"
    )
    span = server.span("/orders/", "POST", body=body, headers={"Content-Type": "multipart/form-data; boundary=b"})

    assert server.answer.body == b"3000000"
    assert span.attributes["http.response.status_code"] == 200


@pytest.mark.parametrize(
    ("path", "status"), [("/missing/", 404), ("/missing/returned/", 404), ("/forbidden/", 403), ("/forbidden/returned/", 403)]
)
def test_refusal_is_no_error(server, path, status):
    span = server.span(path)

    assert span.attributes["http.response.status_code"] == status
    assert span.name == f"GET {path}"
    assert span.status == "UNSET"
    assert "error.type" not in span.attributes
    assert span.events == ()


@pytest.mark.parametrize("path", ["/fail/", "/afail/"])
def test_failure(server, path):
    """A 500 is an error, and the exception is told once, redacted."""
    span = server.span(path)

    assert server.answer.status == span.attributes["http.response.status_code"] == 500
    assert span.name == f"GET {path}"
    assert span.status == "ERROR"
    assert span.attributes["error.type"] == "served_views.Broken"
    assert event_names(span) == ["exception"]
    told = span.events[0].attributes
    assert told["exception.type"] == "served_views.Broken"
    assert told["exception.message"].startswith("it broke")
    assert "served_views.py" in told["exception.stacktrace"]
    server.telemetry.assert_no_leak("hunter2")


def test_server_error_returned(server):
    span = server.span("/fail/returned/")

    assert span.status == "ERROR"
    assert span.attributes["error.type"] == "503"
    assert span.events == ()


@pytest.mark.parametrize("wish", ["fail-before", "fail-after"])
def test_failure_in_a_middleware(server, wish):
    span = server.span("/ok/", headers={"X-Wish": wish})

    assert span.attributes["http.response.status_code"] == 500
    assert span.attributes["error.type"] == "RuntimeError"
    assert span.status == "ERROR"
    assert event_names(span) == ["exception"]


def test_failure_that_a_middleware_answers(server):
    """process_exception made a 503 of it: the exception is still the reason."""
    span = server.span("/fail/", headers={"X-Wish": "answer"})

    assert span.attributes["http.response.status_code"] == 503
    assert span.attributes["error.type"] == "served_views.Broken"
    assert event_names(span) == ["exception"]


def test_failure_that_a_middleware_excuses(server):
    """A 500 became a 200 further out: the exception is told, the request is no error."""
    span = server.span("/fail/", headers={"X-Wish": "excuse"})

    assert span.attributes["http.response.status_code"] == 200
    assert span.status == "UNSET"
    assert "error.type" not in span.attributes
    assert event_names(span) == ["exception"]


def test_bad_host(server):
    """CommonMiddleware raises DisallowedHost: a 400 with span and metric."""
    span = server.span("/ok/", headers={"Host": "evil.example"})

    assert server.answer.status == 400
    assert span.attributes["http.response.status_code"] == 400
    assert span.attributes["server.address"] == "evil.example"
    assert span.status == "UNSET"
    assert [p.attributes["http.response.status_code"] for p in server.telemetry.metrics["http.server.request.duration"].points] == [400]


def test_the_view_leaves_the_process(wsgi):
    """SystemExit is nobody's answer: it goes through, and the span tells."""
    span = wsgi.span("/quit/")

    assert span.attributes["error.type"] == "SystemExit"
    assert "http.response.status_code" not in span.attributes
    assert event_names(span) == ["exception"]


def test_unreadable_asgi_request(asgi):
    """Django answers before there is a request."""
    from django.core.handlers.asgi import ASGIRequest

    original = ASGIRequest.__init__

    def unreadable(self, *args, **kwargs):
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "no")

    ASGIRequest.__init__ = unreadable
    try:
        span = asgi.span("/ok/")
    finally:
        ASGIRequest.__init__ = original

    assert asgi.answer.status == 400
    assert span.name == "GET"
    assert span.attributes["http.response.status_code"] == 400


def test_propagated_exceptions(telemetry):
    """Under DEBUG_PROPAGATE_EXCEPTIONS the server gets the exception."""
    from django.test import Client, override_settings

    with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True), pytest.raises(Exception, match="it broke"):
        Client().get("/fail/")

    (span,) = telemetry.spans
    assert span.attributes["error.type"] == "served_views.Broken"
    assert event_names(span) == ["exception"]


def test_spans_nest(server):
    """What the view does is the server span's child."""
    server.span("/story/")
    work, request = server.telemetry.span("work"), server.telemetry.span("GET /story/")

    assert work.parent_id == request.span_id
    assert server.telemetry.trace_ids() == {request.trace_id}


def test_names_are_bounded(server):
    """Paths, hosts and methods that a client makes up do not make up names or series."""
    for number in range(30):
        server.call(f"/nothing/{number}/", headers={"Host": f"h{number}.example" if number % 2 else f"localhost:{number + 1}"})
    server.spans(30)

    assert {span.name for span in server.telemetry.spans} == {"GET"}
    assert len(server.telemetry.metrics["http.server.request.duration"].points) == 2  # 404, and 400 for the host
