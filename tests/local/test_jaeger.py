"""Jaeger's query API: served from the store, and asked as a source, by its versions."""

from __future__ import annotations

import http.server
import json
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from chegou_otel.local.jaeger_api import _duration, _nanoseconds
from chegou_otel.local.jaeger_source import NO_LOGS, Jaeger, window
from chegou_otel.local.sources import Detected, Unreachable
from tests.local.programs import get_json, post, send
from tests.local.wires import Sender, order, uuid7

if TYPE_CHECKING:
    from collections.abc import Iterator

EVER = {"query.start_time_min": "2020-01-01T00:00:00Z", "query.start_time_max": "2100-01-01T00:00:00.123456789Z"}


def search(url: str, **query: str) -> tuple[int, list[dict[str, Any]]]:
    given = {f"query.{key}": value for key, value in query.items()}
    status, told = get_json(url, f"/api/v3/traces?{urlencode({**EVER, **given})}")
    spans = [span for each in told.get("result", {}).get("resourceSpans", []) for scope in each["scopeSpans"] for span in scope["spans"]]
    return status, spans


def test_services_and_operations(url: str) -> None:
    send(url, order())
    assert get_json(url, "/api/v3/services") == (200, {"services": ["hub"]})
    _, told = get_json(url, "/api/v3/operations?service=hub&span_kind=server")
    assert told == {"operations": [{"name": "POST /orders/", "spanKind": "server"}]}
    assert get_json(url, "/api/v3/operations")[0] == 400


def test_a_trace_in_otlps_json(url: str) -> None:
    sender = Sender()
    span_id = sender.span("work", "SERVER", 0, 1, b"12345678", number=7)
    post(url, "/v1/traces", sender.traces_body)

    status, told = get_json(url, f"/api/v3/traces/{sender.trace_id.hex()}")

    assert status == 200
    (resource,) = told["result"]["resourceSpans"]
    (span,) = resource["scopeSpans"][0]["spans"]
    assert (span["traceId"], span["spanId"], span["parentSpanId"]) == (sender.trace_id.hex(), span_id.hex(), b"12345678".hex())
    assert span["startTimeUnixNano"] == str(sender.begin)
    assert span["kind"] == 2
    assert {"key": "number", "value": {"intValue": "7"}} in span["attributes"]


def test_search_by_correlation_id(url: str) -> None:
    sent = send(url, order())
    send(url, order())
    status, spans = search(url, attributes=json.dumps({"correlation_id": sent.correlation_id}))
    assert status == 200
    assert {span["traceId"] for span in spans} == {sent.trace_id}
    assert len(spans) == 11
    assert len(search(url, service_name="hub", search_depth="1")[1]) == 11
    assert len(search(url, service_name="hub", search_depth="5")[1]) == 22


@pytest.mark.parametrize(
    "query", [{"service_name": "nobody"}, {"operation_name": "nothing"}, {"attributes": '{"correlation_id": "x"}'}, {"duration_min": "10s"}]
)
def test_nothing_found_is_a_404(url: str, query: dict[str, str]) -> None:
    send(url, order())
    assert search(url, **query) == (404, [])
    status, told = get_json(url, "/api/v3/traces/" + "0" * 32)
    assert (status, told["error"]["httpCode"]) == (404, 404)


@pytest.mark.parametrize(
    "query",
    [{"query.start_time_min": ""}, {"query.start_time_max": "yesterday"}, {"query.start_time_min": "2020-01-01T00:00:00"},
     {"query.attributes": "{"}, {"query.attributes": "[]"}, {"query.search_depth": "x"}, {"query.duration_min": "5 parsecs"}],
)  # fmt: skip
def test_a_wrong_question_is_a_400(url: str, query: dict[str, str]) -> None:
    assert get_json(url, f"/api/v3/traces?{urlencode({**EVER, **query})}")[0] == 400


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("1.5s", 1_500_000_000), ("200ms", 200_000_000), ("10us", 10_000), ("10µs", 10_000), ("2m", 120 * 10**9)]
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert _duration(text) == nanoseconds


def test_moments_are_exact() -> None:
    assert _nanoseconds("2026-01-01T00:00:00.123456789Z") % 10**9 == 123456789
    assert _nanoseconds("2026-01-01T00:00:00.5+01:00") == _nanoseconds("2025-12-31T23:00:00.500Z")
    assert _nanoseconds("2026-01-01T00:00:00Z") == int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 10**9


# --- as a source ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["correlation_id", "trace_id", "job_id"])
def test_our_own_api_as_a_source(url: str, by: str) -> None:
    sent = send(url, order())
    send(url, order())
    records = Jaeger(url).find(getattr(sent, by))
    assert len(records.spans) == 11
    assert records.partial == (NO_LOGS,)
    assert {span.kind for span in records.spans} == {"SERVER", "CLIENT", "PRODUCER", "CONSUMER"}
    failed = [span for span in records.spans if span.failed]
    assert [(span.service, span.status_message, span.events[0].attributes["exception.message"]) for span in failed] == [
        ("hub", "refused", "refused")
    ]


def test_unknown(url: str) -> None:
    send(url, order())
    assert not Jaeger(url).find(uuid7())
    assert not Jaeger(url).find("f" * 32)


class Old:
    """A Jaeger of an older time: answers as recorded, without a v3 search, or with one that ignores attributes."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer.asked.append((parts.path, parse_qs(parts.query)))
                known = parts.path in answers
                body = json.dumps(answers.get(parts.path, {"errors": [{"code": 404}]})).encode()
                self.send_response(200 if known else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


TRACE = "0000000000000000a1b2c3d4e5f60718"
ID = "01890a5d-ac96-774b-bcce-b302099a8057"
V1 = {
    "data": [{
        "traceID": "a1b2c3d4e5f60718",  # older ones leave zeros out
        "spans": [
            {"traceID": "a1b2c3d4e5f60718", "spanID": "1", "operationName": "GET /", "references": [], "startTime": 1_700_000_000_000_000, "duration": 5000,
             "tags": [{"key": "correlation_id", "type": "string", "value": ID}, {"key": "span.kind", "type": "string", "value": "server"},
                      {"key": "http.response.status_code", "type": "int64", "value": 500}, {"key": "error", "type": "bool", "value": True},
                      {"key": "otel.status_description", "type": "string", "value": "boom"}],
             "logs": [{"timestamp": 1_700_000_000_001_000, "fields": [{"key": "event", "type": "string", "value": "exception"},
                                                                     {"key": "exception.type", "type": "string", "value": "ValueError"}]}],
             "processID": "p1"},
            {"traceID": "a1b2c3d4e5f60718", "spanID": "2", "operationName": "inner", "startTime": 1_700_000_000_001_000, "duration": 1000, "tags": [],
             "references": [{"refType": "CHILD_OF", "traceID": "a1b2c3d4e5f60718", "spanID": "1"}], "logs": [], "processID": "p1"},
        ],
        "processes": {"p1": {"serviceName": "hub", "tags": [{"key": "chegou.role", "type": "string", "value": "web"}]}},
    }],
}  # fmt: skip
FOREIGN = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [
    {"traceId": "b" * 32, "spanId": "c" * 16, "name": "newest", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}]}]}]}  # fmt: skip


@pytest.fixture(
    params=[
        {"/api/services": {"data": ["hub"]}, "/api/traces": V1, f"/api/traces/{TRACE}": V1},
        {"/api/v3/services": {"services": ["hub"]}, "/api/v3/traces": {"result": FOREIGN}, "/api/traces": V1},
    ],
    ids=["without v3", "v3 that ignores attributes"],
)
def old(request: pytest.FixtureRequest) -> Iterator[Old]:
    old = Old(request.param)
    yield old
    old.stop()


def test_older_jaegers(old: Old) -> None:
    first, second = Jaeger(old.url).find(ID).spans
    assert (first.trace_id, first.span_id, first.kind, first.status, first.status_message) == (
        TRACE,
        "1".zfill(16),
        "SERVER",
        "ERROR",
        "boom",
    )
    assert (first.start, first.end - first.start) == (1_700_000_000_000_000_000, 5_000_000)
    assert first.resource == {"service.name": "hub", "chegou.role": "web"}
    assert first.events[0].attributes == {"exception.type": "ValueError"}
    assert (second.parent_id, second.kind) == (first.span_id, "INTERNAL")
    asked = dict(old.asked)["/api/traces"]
    assert asked["tags"] == [json.dumps({"correlation_id": ID})]
    assert not Jaeger(old.url).find("another")


def test_an_id_that_tells_its_time_is_looked_for_around_it() -> None:
    made = int(time.time()) - 30 * 86400
    since, until = window(uuid7(made * 1000))
    assert since < made < until < made + 2 * 86400
    assert window(uuid7(made * 1000).replace("-", "")) == (since, until)
    since, until = window("free-text")
    assert since < time.time() - 86400 < time.time() < until


@pytest.mark.parametrize("answers", [{}, {"/api/v3/services": []}, {"/api/v3/services": {"services": 3}}])
def test_what_is_no_jaeger_is_said(answers: dict[str, Any]) -> None:
    other = Old(answers)
    try:
        for source in (Jaeger(other.url), Detected(other.url)):
            with pytest.raises(Unreachable, match="is not Jaeger"):
                source.find(ID)
    finally:
        other.stop()


def test_detection(url: str, old: Old) -> None:
    sent = send(url, order())
    assert Detected(url).find(sent.correlation_id).logs
    assert Detected(old.url).find(ID).spans
