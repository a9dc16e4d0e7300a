"""Exemplars: single measurements that lead from a metric to a trace.

A series keeps one per bucket and collection, the first. So a value whose bucket has one costs a look-up, and no measurement
waits with its span for the next collection.
"""

from __future__ import annotations

import struct
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from opentelemetry import trace

from chegou_otel.delivery import otlp

if TYPE_CHECKING:
    from collections.abc import Iterable

HISTOGRAM: Final = b"\x42"
NUMBER: Final = b"\x2a"
EXPONENTIAL: Final = b"\x5a"
_SIGNED64: Final = struct.Struct("<cq").pack
_DOUBLE: Final = struct.Struct("<cd").pack
_TIME: Final = struct.Struct("<cQ").pack


class Origin(NamedTuple):
    """The span under which something was measured, and when; the first three as a span of ours has them."""

    trace_bytes: bytes
    span_bytes: bytes
    flags: int
    time: int

    def told(self) -> bytes:
        """As it crosses from a work-horse to its parent, in JSON."""
        return b'["%b","%b",%d]' % (self.trace_bytes.hex().encode(), self.span_bytes.hex().encode(), self.time)

    def span(self) -> trace.Span:
        """What stands for the span where another's meter asks for the current one."""
        ids = int.from_bytes(self.trace_bytes), int.from_bytes(self.span_bytes)
        return trace.NonRecordingSpan(trace.SpanContext(*ids, True, trace.TraceFlags(1)))

    @classmethod
    def heard(cls, trace_id: str, span_id: str, time: int) -> Self:
        return cls(bytes.fromhex(trace_id), bytes.fromhex(span_id), 1, time)


class Exemplar(NamedTuple):
    value: float
    origin: Origin


def origin_of(span: Any, always: bool = False) -> Origin | None:
    """Where a measurement under ``span`` comes from; ``None`` when it is no exemplar, because the span is not sampled."""
    if type(span) is Origin:
        return span
    if span is not None:
        flags = getattr(span, "flags", None)
        if flags is None:  # no span of ours
            context = span.get_span_context()
            if context.trace_flags & 1:
                return Origin(context.trace_id.to_bytes(16), context.span_id.to_bytes(8), 1, time_ns())
        elif flags & 1:
            return Origin(span.trace_bytes, span.span_bytes, 1, time_ns())
    return Origin(b"", b"", 0, time_ns()) if always else None


def encode(tag: bytes, exemplars: Iterable[Exemplar]) -> bytes:
    """As fields of a data point; ``tag`` is its field for exemplars."""
    return b"".join([_encode(tag, *each) for each in exemplars])


def _encode(tag: bytes, value: float, origin: Origin) -> bytes:
    number = _SIGNED64(b"\x31", value) if type(value) is int else _DOUBLE(b"\x19", value)
    ids = b"\x22\x08" + origin.span_bytes + b"\x2a\x10" + origin.trace_bytes if origin.trace_bytes else b""
    return otlp.message(tag, _TIME(b"\x11", origin.time) + number + ids)


def from_sdk(tag: bytes, found: Iterable[Any] | None) -> bytes:
    """The SDK's exemplars. Attributes that a view took off the series are left out here, too."""
    return b"".join([
        _encode(
            tag,
            each.value,
            Origin(each.trace_id.to_bytes(16), each.span_id.to_bytes(8), 1, each.time_unix_nano)
            if each.trace_id and each.span_id
            else Origin(b"", b"", 0, each.time_unix_nano),
        )
        for each in found or ()
    ])  # fmt: skip
