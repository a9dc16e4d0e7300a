"""The correlation ID of a request: where it comes from, who sees it, and that it leaves with the request."""

import re
import threading

import pytest
from serving import Served, serving_wsgi, until

from chegou_otel import get_correlation_id

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch


def test_made_when_none_came(server):
    span = server.span("/ok/")

    assert UUID7(span.correlation_id)
    assert server.answer.headers["X-Correlation-ID"] == span.correlation_id
    assert "correlation_id.source" not in span.attributes


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Correlation-ID": "pedido-0000001"},
        {"X-Request-ID": "pedido-0000001"},
        {"X-Correlation-ID": "pedido-0000001", "X-Request-ID": "other-00000001"},
        {"X-Correlation-ID": "bad one", "X-Request-ID": "pedido-0000001"},
    ],
)
def test_accepted(server, headers):
    span = server.span("/ok/", headers=headers)

    assert span.correlation_id == server.answer.headers["X-Correlation-ID"] == "pedido-0000001"
    assert span.attributes["correlation_id.source"] == "client"


@pytest.mark.parametrize(
    "value", ["short", "x" * 129, "with space in it", "<script>alert(1)</script>", "${jndi:ldap://x}", "quote'quote", "\u00e7" * 8, ""]
)
def test_replaced(server, value):
    span = server.span("/ok/", headers={"X-Correlation-ID": value.encode("latin-1")})

    assert UUID7(span.correlation_id)
    assert UUID7(server.answer.headers["X-Correlation-ID"])
    if value:
        server.telemetry.assert_no_leak(value)


@pytest.mark.parametrize("path", ["/story/", "/astory/"])
def test_everywhere_in_the_request(server, path):
    """The view, its spans and log lines, the threads and tasks that it starts."""
    import json

    span = server.span(path)
    told = json.loads(server.answer.body)

    assert set(told.values()) == {span.correlation_id}
    assert {s.correlation_id for s in server.telemetry.spans} == {span.correlation_id}
    assert [log.correlation_id for log in server.telemetry.logs if log.body == "working"] == [span.correlation_id]


def test_not_left_in_the_thread(telemetry):
    """One thread serves many requests (gthread); between two of them there is no ID, and every request has its own."""
    from django.core.wsgi import get_wsgi_application
    from django.test import RequestFactory
    from opentelemetry import context

    application = get_wsgi_application()
    seen = []

    def work():
        for path in ("/ok/", "/fail/", "/missing/", "/stream/", "/ok/", "/quit/"):
            try:
                response = application(RequestFactory().get(path).environ, lambda *args: None)
            except SystemExit:
                pass
            else:
                between = get_correlation_id()
                response.close()
                seen.append(between)
            seen.append(get_correlation_id())
            seen.append(context.get_current() or None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert set(seen) == {None}
    ids = [span.correlation_id for span in telemetry.spans if span.kind == "SERVER"]
    assert len(ids) == len(set(ids)) == 6
    assert all(ids)


def test_server_started_under_a_context(telemetry):
    """runserver is a command with a span of its own, and starts a thread for each request: a request is no part of it."""
    from django.core.wsgi import get_wsgi_application
    from opentelemetry import trace

    from chegou_otel import use_correlation_id

    with (
        use_correlation_id("the-command-itself"),
        trace.get_tracer("t").start_as_current_span("runserver"),
        serving_wsgi(get_wsgi_application()) as port,
    ):
        server = Served(port, "wsgi", telemetry)
        first, second = server.span("/ok/"), server.span("/ok/")

    assert len({first.correlation_id, second.correlation_id, "the-command-itself"}) == 3
    assert len({first.trace_id, second.trace_id}) == 2
    assert first.parent_id == second.parent_id == ""


def test_request_finished_still_belongs_to_it(server):
    """Handlers of request_finished (django-rq enqueues there) run under the request's span and ID."""
    from django.core.signals import request_finished
    from opentelemetry import trace

    seen = []

    def handler(**kwargs):
        with trace.get_tracer("t").start_as_current_span("afterwards"):
            seen.append(get_correlation_id())

    request_finished.connect(handler)
    try:
        server.span("/ok/")
        until(lambda: len(server.telemetry.spans) == 2)
    finally:
        request_finished.disconnect(handler)

    request, late = server.telemetry.span("GET /ok/"), server.telemetry.span("afterwards")
    assert seen == [request.correlation_id]
    assert late.parent_id == request.span_id
    assert request.start <= late.start <= late.end <= request.end


def test_application_header_wins(server):
    server.call("/own-header/")
    assert server.call("/own-header/").headers["X-Correlation-ID"] == "the-applications-own"


def test_concurrent_requests(server):
    """Each has its own, whatever the order in which they end."""
    answers = {}

    def call(number):
        answers[number] = server.call("/astory/", headers={"X-Correlation-ID": f"pedido-{number:07}"})

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.spans(20)

    for number, answer in answers.items():
        assert answer.headers["X-Correlation-ID"] == f"pedido-{number:07}"
        assert answer.body.count(f"pedido-{number:07}".encode()) == 4
    by_trace = {}
    for span in server.telemetry.spans:
        by_trace.setdefault(span.trace_id, set()).add(span.correlation_id)
    assert len(by_trace) == 20
    assert all(len(ids) == 1 for ids in by_trace.values())


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_static_file_of_runserver_goes_out_as_it_is(telemetry, tmp_path, kind):
    """It passes no middleware, so it gets no header either; its span is there."""
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler, StaticFilesHandler
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.test import override_settings
    from serving import serving_asgi

    (tmp_path / "page.css").write_text("body {}")
    with override_settings(STATIC_URL="/static/", STATICFILES_DIRS=[tmp_path], DEBUG=True):
        apps = StaticFilesHandler(get_wsgi_application()), ASGIStaticFilesHandler(get_asgi_application())
        with serving_wsgi(apps[0]) if kind == "wsgi" else serving_asgi(apps[1]) as port:
            server = Served(port, kind, telemetry)
            server.span("/static/page.css")

    assert server.answer.status == 200
    assert "X-Correlation-ID" not in server.answer.headers
