"""Spans and log records as the story sees them, wherever they come from: the store, the local backend's JSON, or Jaeger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES: Final = ("UNSET", "OK", "ERROR")

CORRELATION: Final = "correlation_id"
JOB: Final = "messaging.message.id"

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a span; the time in nanoseconds since 1970."""

    name: str
    time: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another span, IDs in hex."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span: IDs in hex (``parent_id`` empty at the root), times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start: int
    end: int
    status: str = "UNSET"
    status_message: str = ""
    scope: str = ""
    attributes: Attributes = field(default_factory=dict)
    resource: Attributes = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def service(self) -> str:
        """The service that made it."""
        return str(self.resource.get("service.name", ""))

    @property
    def correlation_id(self) -> str:
        """Its correlation ID, or nothing."""
        return str(self.attributes.get(CORRELATION, ""))

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0, self.end - self.start) / 1e9

    @property
    def failed(self) -> bool:
        """Whether it ended in an error."""
        return self.status == "ERROR"

    def get(self, *keys: str) -> Any:
        """The first of these attributes that it has, or ``""``."""
        return next((self.attributes[key] for key in keys if key in self.attributes), "")


@dataclass(frozen=True, slots=True)
class Log:
    """A log record; ``trace_id`` and ``span_id`` in hex, or empty."""

    time: int
    severity: int
    severity_text: str
    body: Any
    logger: str = ""
    trace_id: str = ""
    span_id: str = ""
    attributes: Attributes = field(default_factory=dict)
    resource: Attributes = field(default_factory=dict)

    @property
    def service(self) -> str:
        """The service that wrote it."""
        return str(self.resource.get("service.name", ""))

    @property
    def correlation_id(self) -> str:
        """Its correlation ID, or nothing."""
        return str(self.attributes.get(CORRELATION, ""))

    @property
    def level(self) -> str:
        """DEBUG, INFO, …: what the sender said, or what its number means."""
        return self.severity_text or _level(self.severity)

    @property
    def failed(self) -> bool:
        """ERROR and worse."""
        return self.severity >= ERROR


ERROR: Final = 17
WARNING: Final = 13
_LEVELS: Final = ((21, "FATAL"), (17, "ERROR"), (13, "WARN"), (9, "INFO"), (5, "DEBUG"), (1, "TRACE"))


def _level(number: int) -> str:
    return next((name for least, name in _LEVELS if number >= least), "")


@dataclass(frozen=True, slots=True)
class Records:
    """What a source knows about an ID. ``partial`` says what it could not give, in words."""

    spans: tuple[Span, ...] = ()
    logs: tuple[Log, ...] = ()
    partial: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.spans or self.logs)


def to_json(records: Records) -> dict[str, Any]:
    """Times are strings of nanoseconds: JSON numbers do not hold them everywhere."""
    return {
        "spans": [_span_to_json(span) for span in records.spans],
        "logs": [_log_to_json(log) for log in records.logs],
        "partial": list(records.partial),
    }


def _span_to_json(span: Span) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "service": span.service,
        "name": span.name,
        "kind": span.kind,
        "start_unix_nano": str(span.start),
        "end_unix_nano": str(span.end),
        "duration_ms": round(span.seconds * 1000, 3),
        "status": span.status,
        "status_message": span.status_message,
        "scope": span.scope,
        "attributes": dict(span.attributes),
        "resource": dict(span.resource),
        "events": [{"name": e.name, "time_unix_nano": str(e.time), "attributes": dict(e.attributes)} for e in span.events],
        "links": [{"trace_id": link.trace_id, "span_id": link.span_id} for link in span.links],
    }


def _log_to_json(log: Log) -> dict[str, Any]:
    return {
        "time_unix_nano": str(log.time),
        "severity": log.level,
        "severity_number": log.severity,
        "service": log.service,
        "logger": log.logger,
        "body": log.body,
        "trace_id": log.trace_id,
        "span_id": log.span_id,
        "attributes": dict(log.attributes),
        "resource": dict(log.resource),
    }


def from_json(told: Mapping[str, Any]) -> Records:
    """The records that `to_json` wrote; KeyError, TypeError or ValueError when it did not."""
    spans = tuple(_span_from_json(each) for each in told["spans"])
    logs = tuple(_log_from_json(each) for each in told["logs"])
    return Records(spans, logs, tuple(str(each) for each in told.get("partial", ())))


def _span_from_json(told: Mapping[str, Any]) -> Span:
    return Span(
        trace_id=told["trace_id"],
        span_id=told["span_id"],
        parent_id=told["parent_id"],
        name=told["name"],
        kind=told["kind"],
        start=int(told["start_unix_nano"]),
        end=int(told["end_unix_nano"]),
        status=told["status"],
        status_message=told["status_message"],
        scope=told["scope"],
        attributes=told["attributes"],
        resource=told["resource"],
        events=tuple(Event(e["name"], int(e["time_unix_nano"]), e["attributes"]) for e in told["events"]),
        links=tuple(Link(link["trace_id"], link["span_id"]) for link in told["links"]),
    )


def _log_from_json(told: Mapping[str, Any]) -> Log:
    return Log(
        time=int(told["time_unix_nano"]),
        severity=int(told["severity_number"]),
        severity_text=told["severity"],
        body=told["body"],
        logger=told["logger"],
        trace_id=told["trace_id"],
        span_id=told["span_id"],
        attributes=told["attributes"],
        resource=told["resource"],
    )
