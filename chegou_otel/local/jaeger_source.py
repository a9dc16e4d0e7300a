"""Jaeger's query API as a source of stories: v3, and what was there before it.

Versions differ. Some ignore `query.attributes` and answer the newest traces, so every answer is filtered here; some cannot search without
a service, so each service is asked; the old search (`/api/traces?tags=`) is the last resort. Jaeger has spans only: no logs.
"""

from __future__ import annotations

import base64
import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from chegou_otel.local.records import CORRELATION, JOB, KINDS, STATUSES, Event, Link, Records, Span
from chegou_otel.local.sources import NotFound, Unreachable, get_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEPTH: Final = 100
HOUR: Final = 3600.0
LOOK_BACK: Final = 48 * HOUR  # of an ID that does not tell its time
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
_UUID7: Final = re.compile(r"([0-9a-f]{8})-?([0-9a-f]{4})-?7[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}", re.IGNORECASE)
NO_LOGS: Final = "Jaeger keeps no logs: they are where the collector sends them"


class Jaeger:
    """A Jaeger, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def find(self, identifier: str) -> Records:
        """Everything of all traces that have this ID."""
        found: dict[tuple[str, str], Span] = {}
        services = self._services()
        if _TRACE_ID.fullmatch(identifier):
            _add(found, self._trace(identifier.lower()))
        for key in () if found else (CORRELATION, JOB):
            for service in services:
                _add(found, self._search(service, key, identifier))
            if found:
                break
        for trace_id in {span.trace_id for span in found.values()}:  # a search may leave out what another service did
            _add(found, self._trace(trace_id))
        return Records(tuple(found.values()), (), (NO_LOGS,)) if found else Records()

    def _services(self) -> list[str]:
        try:
            return list(get_json(f"{self.url}/api/v3/services").get("services") or [])
        except NotFound:
            pass
        except (AttributeError, TypeError) as error:
            raise Unreachable(f"{self.url} is not Jaeger") from error
        try:
            return list(get_json(f"{self.url}/api/services").get("data") or [])
        except (NotFound, AttributeError, TypeError) as error:
            raise Unreachable(f"{self.url} is not Jaeger") from error

    def _trace(self, trace_id: str) -> list[Span]:
        try:
            return list(_v3(get_json(f"{self.url}/api/v3/traces/{quote(trace_id)}")))
        except NotFound:
            pass
        try:
            return list(_v1(get_json(f"{self.url}/api/traces/{quote(trace_id)}")))
        except NotFound:
            return []

    def _search(self, service: str, key: str, value: str) -> list[Span]:
        since, until = window(value)
        return _having(self._search_v3(service, key, value, since, until), key, value) or _having(
            self._search_v1(service, key, value, since, until), key, value
        )

    def _search_v3(self, service: str, key: str, value: str, since: float, until: float) -> list[Span]:
        parameters = {
            "query.service_name": service,
            "query.start_time_min": _rfc3339(since),
            "query.start_time_max": _rfc3339(until),
            "query.search_depth": DEPTH,
            "query.num_traces": DEPTH,  # what search_depth was called
            "query.attributes": json.dumps({key: value}),
        }
        try:
            return list(_v3(get_json(f"{self.url}/api/v3/traces?{urlencode(parameters)}")))
        except NotFound:  # also how v3 says that there is nothing
            return []

    def _search_v1(self, service: str, key: str, value: str, since: float, until: float) -> list[Span]:
        parameters = {
            "service": service,
            "tags": json.dumps({key: value}),
            "start": int(since * 1e6),
            "end": int(until * 1e6),
            "limit": DEPTH,
        }
        try:
            return list(_v1(get_json(f"{self.url}/api/traces?{urlencode(parameters)}")))
        except (NotFound, Unreachable):  # gone in newer versions
            return []


def window(identifier: str) -> tuple[float, float]:
    """When to look, in seconds since 1970. A UUIDv7 carries its time; its jobs may run for a day after it."""
    now = time.time()
    if match := _UUID7.fullmatch(identifier):
        made = int(match[1] + match[2], 16) / 1000
        if 0 < made < now + HOUR:
            return made - HOUR, min(made + 24 * HOUR, now + HOUR)
    return now - LOOK_BACK, now + HOUR


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _add(found: dict[tuple[str, str], Span], spans: list[Span]) -> None:
    for span in spans:
        found.setdefault((span.trace_id, span.span_id), span)


def _having(spans: list[Span], key: str, value: str) -> list[Span]:
    traces = {span.trace_id for span in spans if str(span.get(key)) == value}
    return [span for span in spans if span.trace_id in traces]


# --- v3: OTLP's JSON ------------------------------------------------------------------------------------------------------------------


def _v3(answer: Mapping[str, Any]) -> Iterator[Span]:
    for container in (answer.get("result") or {}).get("resourceSpans") or []:
        resource = attributes((container.get("resource") or {}).get("attributes"))
        for scope_spans in container.get("scopeSpans") or []:
            scope = (scope_spans.get("scope") or {}).get("name", "")
            for span in scope_spans.get("spans") or []:
                yield _v3_span(span, scope, resource)


def _v3_span(span: Mapping[str, Any], scope: str, resource: dict[str, Any]) -> Span:
    status = span.get("status") or {}
    return Span(
        trace_id=_id(span["traceId"], 16),
        span_id=_id(span["spanId"], 8),
        parent_id=_id(span.get("parentSpanId", ""), 8),
        name=span.get("name", ""),
        kind=_name(KINDS, span.get("kind", 0), "SPAN_KIND_"),
        start=int(span.get("startTimeUnixNano", 0)),
        end=int(span.get("endTimeUnixNano", 0)),
        status=_name(STATUSES, status.get("code", 0), "STATUS_CODE_"),
        status_message=status.get("message", ""),
        scope=scope,
        attributes=attributes(span.get("attributes")),
        resource=resource,
        events=tuple(
            Event(e.get("name", ""), int(e.get("timeUnixNano", 0)), attributes(e.get("attributes"))) for e in span.get("events") or []
        ),
        links=tuple(Link(_id(link["traceId"], 16), _id(link["spanId"], 8)) for link in span.get("links") or []),
    )


def _id(text: str, size: int) -> str:
    """Hex as OTLP says; some versions write base64."""
    if len(text) in (0, 2 * size):
        return text.lower()
    return base64.b64decode(text).hex()


def _name(names: tuple[str, ...], value: int | str, prefix: str) -> str:
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else str(value)
    return value.removeprefix(prefix)


def attributes(values: Any) -> dict[str, Any]:
    """OTLP's JSON attributes as a dictionary."""
    return {each["key"]: _value(each.get("value") or {}) for each in values or []}


def _value(value: Mapping[str, Any]) -> Any:
    for kind, told in value.items():
        if kind == "intValue":
            return int(told)
        if kind == "arrayValue":
            return [_value(each) for each in told.get("values") or []]
        if kind == "kvlistValue":
            return attributes(told.get("values"))
        return told
    return None


# --- v1: Jaeger's own JSON ------------------------------------------------------------------------------------------------------------


def _v1(answer: Mapping[str, Any]) -> Iterator[Span]:
    for trace in answer.get("data") or []:
        for span in trace.get("spans") or []:
            process = trace["processes"][span["processID"]]
            yield _v1_span(span, {"service.name": process.get("serviceName", ""), **_tags(process.get("tags"))})


def _v1_span(span: Mapping[str, Any], resource: dict[str, Any]) -> Span:
    tags = _tags(span.get("tags"))
    start = int(span["startTime"]) * 1000
    references = span.get("references") or []
    return Span(
        trace_id=span["traceID"].rjust(32, "0"),
        span_id=span["spanID"].rjust(16, "0"),
        parent_id=next((each["spanID"].rjust(16, "0") for each in references if each["refType"] == "CHILD_OF"), ""),
        name=span["operationName"],
        kind=str(tags.pop("span.kind", "internal")).upper(),
        start=start,
        end=start + int(span["duration"]) * 1000,
        status="ERROR" if tags.pop("error", False) else str(tags.pop("otel.status_code", "UNSET")),
        status_message=str(tags.pop("otel.status_description", "")),
        scope=str(tags.pop("otel.scope.name", "")),
        attributes=tags,
        resource=resource,
        events=tuple(_v1_event(each) for each in span.get("logs") or []),
    )


def _v1_event(log: Mapping[str, Any]) -> Event:
    fields = _tags(log.get("fields"))
    return Event(str(fields.pop("event", "")), int(log["timestamp"]) * 1000, fields)


def _tags(values: Any) -> dict[str, Any]:
    return {each["key"]: each.get("value") for each in values or []}
