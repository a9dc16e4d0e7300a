"""Encoded frames read back: what a test sees is what would have left the process, byte for byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final

_KINDS: Final = {0: "UNSPECIFIED", 1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
_STATUS: Final = {0: "UNSET", 1: "OK", 2: "ERROR"}
_TEMPORALITIES: Final = ("", "delta", "cumulative")
_DATA: Final = {5: "gauge", 7: "sum", 9: "histogram", 10: "exponential_histogram"}

Fields = dict[int, list[Any]]


@dataclass(frozen=True, slots=True)
class Event:
    """An event on a span."""

    name: str
    attributes: dict[str, Any]
    time: int


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another span, IDs in hex."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecordedSpan:
    """A finished span. IDs in hex (``parent_id`` empty at the root), times in nanoseconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    status: str
    status_message: str
    scope: str
    flags: int

    @property
    def correlation_id(self) -> str | None:
        return self.attributes.get("correlation_id")

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9


@dataclass(frozen=True, slots=True)
class RecordedLog:
    """A log record; ``logger`` is the logger's name."""

    body: Any
    severity: int
    severity_text: str
    attributes: dict[str, Any]
    trace_id: str
    span_id: str
    logger: str
    event_name: str
    time: int

    @property
    def correlation_id(self) -> str | None:
        return self.attributes.get("correlation_id")


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One measurement that went into a data point, and the span under which it was made."""

    value: float
    time: int
    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Point:
    """A data point. ``value`` for sums and gauges; ``count``, ``sum``, ``buckets`` and ``bounds`` for histograms.

    It tells of the time from ``start`` to ``time``.
    """

    attributes: dict[str, Any]
    value: float = 0
    count: int = 0
    sum: float = 0.0
    buckets: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()
    start: int = 0
    time: int = 0
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedMetric:
    """One instrument's state at a collection."""

    name: str
    unit: str
    kind: str
    points: tuple[Point, ...]
    scope: str
    monotonic: bool = field(default=False)
    temporality: str = ""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: bytes) -> Fields:
    """A message's fields by number: ints for varints, bytes for everything else."""
    found: Fields = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(wire)
            if size is None:
                size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def _text(found: Fields, number: int) -> str:
    return bytes(found[number][0]).decode() if number in found else ""


def _int(found: Fields, number: int, form: str = "<Q") -> int:
    if number not in found:
        return 0
    raw = found[number][0]
    return raw if isinstance(raw, int) else int(struct.unpack(form, raw)[0])


def _double(found: Fields, number: int) -> float:
    return float(struct.unpack("<d", found[number][0])[0]) if number in found else 0.0


def any_value(data: bytes) -> Any:
    found = fields(data)
    for number, raws in found.items():
        raw = raws[0]
        if number == 1:
            return bytes(raw).decode()
        if number == 2:
            return bool(raw)
        if number == 3:
            return raw - (1 << 64) if raw >= 1 << 63 else raw
        if number == 4:
            return struct.unpack("<d", raw)[0]
        if number == 5:
            return [any_value(item) for item in fields(raw).get(1, [])]
        if number == 6:
            return attributes(fields(raw).get(1, []))
        if number == 7:
            return bytes(raw)
    return None


def attributes(raws: list[bytes]) -> dict[str, Any]:
    """Repeated ``KeyValue`` messages. A key that stands twice is an encoder's bug.

    Raises:
        ValueError: a key stands twice.
    """
    found: dict[str, Any] = {}
    for raw in raws:
        pair = fields(raw)
        key = _text(pair, 1)
        if key in found:
            raise ValueError(f"attribute {key!r} stands twice")
        found[key] = any_value(pair[2][0]) if 2 in pair else None
    return found


def _body(payload: bytes) -> Fields:
    return fields(fields(payload)[2][0])


def span(payload: bytes, scope: str) -> RecordedSpan:
    """A ``SPAN`` frame's payload."""
    found = _body(payload)
    status = fields(found[15][0]) if 15 in found else {}
    return RecordedSpan(
        name=_text(found, 5),
        kind=_KINDS[_int(found, 6)],
        trace_id=found[1][0].hex(),
        span_id=found[2][0].hex(),
        parent_id=found[4][0].hex() if 4 in found else "",
        start=_int(found, 7),
        end=_int(found, 8),
        attributes=attributes(found.get(9, [])),
        events=tuple(_event(raw) for raw in found.get(11, [])),
        links=tuple(_link(raw) for raw in found.get(13, [])),
        status=_STATUS[_int(status, 3)],
        status_message=_text(status, 2),
        scope=scope,
        flags=_int(found, 16, "<I"),
    )


def _event(raw: bytes) -> Event:
    found = fields(raw)
    return Event(_text(found, 2), attributes(found.get(3, [])), _int(found, 1))


def _link(raw: bytes) -> Link:
    found = fields(raw)
    return Link(found[1][0].hex(), found[2][0].hex(), attributes(found.get(4, [])))


def log(payload: bytes, scope: str) -> RecordedLog:
    """A ``LOG`` frame's payload."""
    found = _body(payload)
    return RecordedLog(
        body=any_value(found[5][0]) if 5 in found else None,
        severity=_int(found, 2),
        severity_text=_text(found, 3),
        attributes=attributes(found.get(6, [])),
        trace_id=found[9][0].hex() if 9 in found else "",
        span_id=found[10][0].hex() if 10 in found else "",
        logger=scope,
        event_name=_text(found, 12),
        time=_int(found, 1),
    )


def metric(payload: bytes, scope: str) -> RecordedMetric:
    """A ``METRIC`` frame's payload."""
    found = _body(payload)
    number = next(n for n in _DATA if n in found)
    data = fields(found[number][0])
    make = _histogram if number == 9 else _exponential if number == 10 else _number
    return RecordedMetric(
        name=_text(found, 1),
        unit=_text(found, 3),
        kind=_DATA[number],
        points=tuple(make(fields(raw)) for raw in data.get(1, [])),
        scope=scope,
        monotonic=bool(_int(data, 3)) if number == 7 else False,
        temporality="" if number == 5 else _TEMPORALITIES[_int(data, 2)],
    )


def _number(found: Fields) -> Point:
    value = _int(found, 6, "<q") if 6 in found else _double(found, 4)
    return Point(attributes(found.get(7, [])), value=value, **_common(found, 5))


def _common(found: Fields, number: int) -> dict[str, Any]:
    """What all kinds of data points have; ``number`` is the field of their exemplars."""
    return {"start": _int(found, 2), "time": _int(found, 3), "exemplars": tuple(_exemplar(fields(raw)) for raw in found.get(number, []))}


def _exemplar(found: Fields) -> Exemplar:
    value = _int(found, 6, "<q") if 6 in found else _double(found, 3)
    return Exemplar(value, _int(found, 2), bytes(found.get(5, [b""])[0]).hex(), bytes(found.get(4, [b""])[0]).hex())


def _histogram(found: Fields) -> Point:
    counts, bounds = bytes(found.get(6, [b""])[0]), bytes(found.get(7, [b""])[0])
    return Point(
        attributes(found.get(9, [])),
        count=_int(found, 4),
        sum=_double(found, 5),
        buckets=struct.unpack(f"<{len(counts) // 8}Q", counts),
        bounds=struct.unpack(f"<{len(bounds) // 8}d", bounds),
        **_common(found, 8),
    )


def _exponential(found: Fields) -> Point:
    return Point(attributes(found.get(1, [])), count=_int(found, 4), sum=_double(found, 5), **_common(found, 11))
