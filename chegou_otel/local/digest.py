"""From OTLP requests to rows: what is promoted to columns, and which records share a chunk.

Everything of one trace that is written in one go becomes one chunk: reading a story then touches a handful of rows, and compression sees
what repeats. Nothing of a record is unpacked here but the few keys that are searched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from chegou_otel.local import otlp
from chegou_otel.local.records import CORRELATION, JOB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LARGEST: Final = (1 << 63) - 1  # SQLite's integers are signed, OTLP's times are not
ENTRY_KINDS: Final = (2, 5)  # SERVER, CONSUMER: where work begins
ERROR: Final = 2

ROUTE: Final = ("http.route", "rq.job.function", "messaging.destination.name")
CODE: Final = ("http.response.status_code", "rq.job.status")
PROMOTED: Final = frozenset({CORRELATION, JOB, *ROUTE, *CODE})
UID: Final = "log.record.uid"


class SpanRow(NamedTuple):
    """The promoted columns of a span."""

    trace_id: bytes
    span_id: bytes
    service: str
    name: str
    kind: int
    route: str
    code: str
    correlation: str
    job: str
    start: int
    duration: int
    error: bool
    entry: bool


class Item(NamedTuple):
    """A record, and the containers that it came in."""

    message: Any
    container: Any  # ResourceSpans or ResourceLogs
    scope: Any  # ScopeSpans or ScopeLogs
    trace_id: bytes
    correlation: str
    uid: str = ""
    row: SpanRow | None = None


@dataclass
class Digest:
    """One request, ready for the writer."""

    signal: str
    items: list[Item] = field(default_factory=list)
    metrics: list[tuple[Any, ...]] = field(default_factory=list)
    body: bytes = b""
    size: int = 0


def digest(signal: str, request: Any, size: int) -> Digest:
    """The rows of a request."""
    if signal == otlp.TRACES:
        return Digest(signal, list(_spans(request)), size=size)
    if signal == otlp.LOGS:
        return Digest(signal, list(_logs(request)), size=size)
    return Digest(signal, metrics=list(_metrics(request)), body=request.SerializeToString(), size=size)


def _service(container: Any) -> str:
    return str(otlp.attributes(container.resource.attributes).get("service.name", ""))


def _promoted(message: Any) -> dict[str, str]:
    return {each.key: _text(each.value) for each in message.attributes if each.key in PROMOTED}


def _text(value: Any) -> str:
    return value.string_value or str(otlp.plain(value))


def _spans(request: Any) -> Iterator[Item]:
    for container in request.resource_spans:
        service = _service(container)
        for scope in container.scope_spans:
            for span in scope.spans:
                row = _span_row(span, service)
                yield Item(span, container, scope, row.trace_id, "", row=row)


def _span_row(span: Any, service: str) -> SpanRow:
    said = _promoted(span)
    start, end = min(span.start_time_unix_nano, LARGEST), min(span.end_time_unix_nano, LARGEST)
    return SpanRow(
        trace_id=span.trace_id,
        span_id=span.span_id,
        service=service,
        name=span.name,
        kind=span.kind,
        route=said.get(ROUTE[0]) or said.get(ROUTE[1]) or said.get(ROUTE[2], ""),
        code=said.get(CODE[0]) or said.get(CODE[1], ""),
        correlation=said.get(CORRELATION, ""),
        job=said.get(JOB, ""),
        start=start,
        duration=max(0, end - start),
        error=span.status.code == ERROR,
        entry=span.kind in ENTRY_KINDS or not span.parent_span_id,
    )


def _logs(request: Any) -> Iterator[Item]:
    for container in request.resource_logs:
        for scope in container.scope_logs:
            for log in scope.log_records:
                said = {each.key: each.value.string_value for each in log.attributes if each.key in (CORRELATION, UID)}
                yield Item(log, container, scope, log.trace_id, said.get(CORRELATION, ""), said.get(UID, ""))


# --- chunks ---------------------------------------------------------------------------------------------------------------------------


class Chunk(NamedTuple):
    """Records of one trace (or, outside of any trace, of one correlation ID) as OTLP."""

    signal: str
    trace_id: bytes
    correlation: str
    body: bytes
    items: list[Item]


def chunks(signal: str, items: Iterable[Item]) -> Iterator[Chunk]:
    """Items by trace."""
    groups: dict[tuple[bytes, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.trace_id, "" if item.trace_id else item.correlation), []).append(item)
    encode = _traces_data if signal == otlp.TRACES else _logs_data
    for (trace_id, correlation), members in groups.items():
        yield Chunk(signal, trace_id, correlation, encode(members), members)


def _traces_data(items: list[Item]) -> bytes:
    data = TracesData()
    for container, scopes in _containers(items):
        resource_spans = data.resource_spans.add(resource=container.resource, schema_url=container.schema_url)
        for scope, messages in scopes:
            resource_spans.scope_spans.add(scope=scope.scope, schema_url=scope.schema_url, spans=messages)
    return bytes(data.SerializeToString())


def _logs_data(items: list[Item]) -> bytes:
    data = LogsData()
    for container, scopes in _containers(items):
        resource_logs = data.resource_logs.add(resource=container.resource, schema_url=container.schema_url)
        for scope, messages in scopes:
            resource_logs.scope_logs.add(scope=scope.scope, schema_url=scope.schema_url, log_records=messages)
    return bytes(data.SerializeToString())


def _containers(items: list[Item]) -> Iterator[tuple[Any, list[tuple[Any, list[Any]]]]]:
    """The containers again, with these items only. Told apart by identity: a request's containers are its own."""
    found: dict[int, tuple[Any, dict[int, tuple[Any, list[Any]]]]] = {}
    for item in items:
        scopes = found.setdefault(id(item.container), (item.container, {}))[1]
        scopes.setdefault(id(item.scope), (item.scope, []))[1].append(item.message)
    for container, by_scope in found.values():
        yield container, list(by_scope.values())


# --- metrics --------------------------------------------------------------------------------------------------------------------------


def _metrics(request: Any) -> Iterator[tuple[Any, ...]]:
    """The last value of every series: name, service, instance, attributes, type, unit, value, time."""
    for container in request.resource_metrics:
        resource = otlp.attributes(container.resource.attributes)
        service, instance = str(resource.get("service.name", "")), str(resource.get("service.instance.id", ""))
        for scope in container.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points if kind else ():
                    labels = json.dumps(otlp.attributes(point.attributes), sort_keys=True)
                    value = json.dumps(_value(kind, point))
                    yield metric.name, service, instance, labels, kind, metric.unit, value, min(point.time_unix_nano, LARGEST)


def _value(kind: str, point: Any) -> Any:
    if kind in ("gauge", "sum"):
        number = point.as_double if point.WhichOneof("value") == "as_double" else point.as_int
        return number if number == number and abs(number) != float("inf") else str(number)  # noqa: PLR0124 - not a number
    told = {"count": point.count, "sum": point.sum}
    if kind == "histogram":
        told |= {"bounds": list(point.explicit_bounds), "buckets": list(point.bucket_counts)}
    return told
