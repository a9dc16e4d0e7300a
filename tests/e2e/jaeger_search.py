"""Searching Jaeger by correlation ID, whatever its age.

The v3 API is the one that stays; before it learnt `query.attributes` it ignored that parameter, so the answer is filtered here, and the
old API with `tags` is asked when v3 knows nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import requests

WINDOW = timedelta(hours=1)


@dataclass(frozen=True)
class FoundSpan:
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    attributes: dict[str, object] = field(hash=False)


def services(url: str) -> list[str]:
    answer = requests.get(f"{url}/api/v3/services", timeout=10)
    answer.raise_for_status()
    return answer.json().get("services") or []


def find(url: str, correlation_id: str) -> list[FoundSpan]:
    """Every span, of any service, of the traces that have a span with this correlation ID."""
    found = {}
    for service in services(url):
        for span in _search_v3(url, service, correlation_id) or _search_v1(url, service, correlation_id):
            found[span.trace_id, span.span_id] = span
    return list(found.values())


def _search_v3(url: str, service: str, correlation_id: str) -> list[FoundSpan]:
    now = datetime.now(UTC)
    parameters = {
        "query.service_name": service,
        "query.start_time_min": (now - WINDOW).isoformat(),
        "query.start_time_max": (now + timedelta(minutes=1)).isoformat(),
        "query.search_depth": "100",
        "query.num_traces": "100",  # what search_depth was called
        "query.attributes": json.dumps({"correlation_id": correlation_id}),
    }
    answer = requests.get(f"{url}/api/v3/traces", params=parameters, timeout=20)
    if answer.status_code == 404:  # how v3 says that there is nothing
        return []
    assert answer.status_code == 200, answer.text
    return _only(_v3_spans(answer.json()["result"]), correlation_id)


def _v3_spans(result: dict) -> list[FoundSpan]:
    return [
        _v3_span(span, resource)
        for resource in result.get("resourceSpans", [])
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def _v3_span(span: dict, resource: dict) -> FoundSpan:
    service = str(_plain(resource["resource"].get("attributes", [])).get("service.name", ""))
    attributes = _plain(span.get("attributes", [])) | {"status.message": span.get("status", {}).get("message", "")}
    return FoundSpan(
        span["traceId"], span["spanId"], span.get("parentSpanId", ""), span["name"], _kind(span.get("kind", 0)), service, attributes
    )


KINDS = ("", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


def _kind(value: int | str) -> str:
    """OTLP JSON may give an enumeration by number or by name."""
    return KINDS[value] if isinstance(value, int) else value.removeprefix("SPAN_KIND_")


def _plain(attributes: list[dict]) -> dict[str, object]:
    return {each["key"]: next(iter(each["value"].values()), None) for each in attributes}


def _search_v1(url: str, service: str, correlation_id: str) -> list[FoundSpan]:
    parameters = {"service": service, "tags": json.dumps({"correlation_id": correlation_id}), "lookback": "1h", "limit": "100"}
    answer = requests.get(f"{url}/api/traces", params=parameters, timeout=20)
    if answer.status_code != 200:  # gone in newer versions
        return []
    spans = []
    for trace in answer.json()["data"]:
        for span in trace["spans"]:
            parents = [each["spanID"] for each in span.get("references", []) if each["refType"] == "CHILD_OF"]
            attributes = {tag["key"]: tag["value"] for tag in span["tags"]}
            attributes["status.message"] = attributes.get("otel.status_description", "")
            kind = str(attributes.get("span.kind", "")).upper()
            process = trace["processes"][span["processID"]]["serviceName"]
            spans.append(FoundSpan(span["traceID"], span["spanID"], "".join(parents[:1]), span["operationName"], kind, process, attributes))
    return _only(spans, correlation_id)


def _only(spans: list[FoundSpan], correlation_id: str) -> list[FoundSpan]:
    traces = {span.trace_id for span in spans if span.attributes.get("correlation_id") == correlation_id}
    return [span for span in spans if span.trace_id in traces]
