"""Jaeger's query API, v3, answered from the store: Jaeger's and Grafana's clients can look at what is here.

The answers are OTLP's JSON: IDs in hex, int64 as strings.
"""

from __future__ import annotations

import json
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.local.store import TraceQuery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chegou_otel.local.store import Store

PREFIX: Final = "/api/v3/"
DEEPEST: Final = 1500

Answer = tuple[int, dict[str, Any]]
# Older and newer spellings of the same parameter.
_DEPTH: Final = ("query.search_depth", "query.searchDepth", "query.num_traces", "query.numTraces")


class JaegerApi:
    """`/api/v3/services`, `/operations`, `/traces` and `/traces/<id>`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """The status and the JSON."""
        name = path.removeprefix(PREFIX) if path.startswith(PREFIX) else ""
        if name == "services":
            return HTTPStatus.OK, {"services": self.store.services()}
        if name == "operations":
            return self._operations(query)
        if name == "traces":
            return self._search(query)
        if name.startswith("traces/"):
            return self._traces([name.removeprefix("traces/").lower().rjust(32, "0")])
        return _refusal(HTTPStatus.NOT_FOUND, "not served here: /api/v3/services, operations, traces, traces/<id>")

    def _operations(self, query: Mapping[str, str]) -> Answer:
        service = query.get("service", "")
        if not service:
            return _refusal(HTTPStatus.BAD_REQUEST, "operations of which service?")
        kind = (query.get("span_kind") or query.get("spanKind") or "").upper().removeprefix("SPAN_KIND_")
        found = self.store.operations(service, kind)
        return HTTPStatus.OK, {"operations": [{"name": name, "spanKind": each.lower()} for name, each in found]}

    def _search(self, query: Mapping[str, str]) -> Answer:
        try:
            wanted = _query(query)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            return _refusal(HTTPStatus.BAD_REQUEST, str(error))
        return self._traces(self.store.search(wanted))

    def _traces(self, trace_ids: list[str]) -> Answer:
        found = [each for trace_id in trace_ids for each in self.store.trace(trace_id)]
        return (HTTPStatus.OK, {"result": {"resourceSpans": found}}) if found else _refusal(HTTPStatus.NOT_FOUND, "No traces found")


def _query(query: Mapping[str, str]) -> TraceQuery:
    def given(*names: str) -> str:
        return next((query[name] for name in names if query.get(name)), "")

    attributes = json.loads(given("query.attributes") or "{}")
    return TraceQuery(
        service=given("query.service_name", "query.serviceName"),
        operation=given("query.operation_name", "query.operationName"),
        since=_nanoseconds(_required(given("query.start_time_min", "query.startTimeMin"), "query.start_time_min")),
        until=_nanoseconds(_required(given("query.start_time_max", "query.startTimeMax"), "query.start_time_max")),
        shortest=_duration(given("query.duration_min", "query.durationMin") or "0s"),
        longest=_duration(given("query.duration_max", "query.durationMax") or "0s") or TraceQuery().longest,
        attributes=tuple((str(key), str(value)) for key, value in attributes.items()),
        depth=max(1, min(DEEPEST, int(given(*_DEPTH) or 20))),
    )


def _required(text: str, name: str) -> str:
    if not text:
        raise ValueError(f"{name} is required")
    return text


def _nanoseconds(text: str) -> int:
    """RFC 3339, whatever the number of digits."""
    whole, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    moment = datetime.fromisoformat(whole + rest[len(digits) :] if dot else text)
    if moment.tzinfo is None:
        raise ValueError(f"a time has a zone: {text!r}")
    return max(0, int(moment.timestamp())) * 1_000_000_000 + int((digits + "0" * 9)[:9])


def _duration(text: str) -> int:
    """1.5s, 200ms, 10us and the like, in nanoseconds."""
    units = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
    number = text.rstrip("nuµmsh")
    unit = text[len(number) :]
    if unit not in units:
        raise ValueError(f"not a duration: {text!r}")
    return int(float(number) * units[unit])


def _refusal(status: int, message: str) -> Answer:
    return status, {"error": {"httpCode": status, "message": message}}
