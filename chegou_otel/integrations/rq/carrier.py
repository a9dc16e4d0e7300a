"""What travels with a job: one versioned field of ours in the job's own hash, out of reach of code that assigns ``job.meta``.

It is captured once, when a queue first takes the job, and never rewritten: retries, dependents and the scheduler keep the
originator. A job without it (enqueued before this package, or by another version) runs as a new story.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.trace import SpanContext, TraceFlags

from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation, is_well_formed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime

#: The field in the job's hash, and the attribute on the ``Job``.
FIELD: Final = "chegou_otel"
ATTRIBUTE: Final = "_chegou_otel_carrier"
_VERSION: Final = "1"
_PARTS: Final = 7


class Carrier(NamedTuple):
    """The originator of a job.

    Attributes:
        trace_id: 32 hex digits, or empty when nothing was recorded.
        span_id: 16 hex digits: the producer span.
        flags: The W3C trace flags.
        correlation_id: Constant through retries, repeats, dependents and callbacks.
        retries: How many retries the job had when it was enqueued; from it follows the attempt's number.
        shape: ``parent`` for a job enqueued to run now, ``link`` for one that was scheduled.
    """

    trace_id: str
    span_id: str
    flags: int
    correlation_id: str
    retries: int
    shape: str

    def encode(self) -> str:
        return ";".join((_VERSION, self.trace_id, self.span_id, f"{self.flags:02x}", self.correlation_id, str(self.retries), self.shape))

    @property
    def span_context(self) -> SpanContext | None:
        if not self.trace_id:
            return None
        context = SpanContext(int(self.trace_id, 16), int(self.span_id, 16), True, TraceFlags(self.flags))
        return context if context.is_valid else None

    @property
    def correlation(self) -> Correlation:
        return Correlation(self.correlation_id, "job")


def decode(text: str) -> Carrier | None:
    """The carrier in ``text``; ``None`` for another version's, or garbage."""
    parts = text.split(";")
    if len(parts) != _PARTS or parts[0] != _VERSION or not is_well_formed(parts[4]):
        return None
    try:
        return Carrier(parts[1], parts[2], int(parts[3], 16), parts[4], int(parts[5]), parts[6])
    except ValueError:
        return None


def of(job: Any) -> Carrier | None:
    """The carrier of a job in hand."""
    text = getattr(job, ATTRIBUTE, None)
    return decode(text) if isinstance(text, str) else None


def attach(job: Any, carrier: Carrier) -> None:
    setattr(job, ATTRIBUTE, carrier.encode())


def patch(runtime: Runtime, module: ModuleType) -> None:
    """``Job.to_dict`` writes the field, ``Job.restore`` reads it."""

    @guarded
    def write(job: Any, found: dict[str, Any]) -> None:
        text = getattr(job, ATTRIBUTE, None)
        if text is not None:
            found[FIELD] = text

    @guarded
    def read(job: Any, raw: Any) -> None:
        value = raw.get(FIELD.encode()) or raw.get(FIELD)
        if value:
            setattr(job, ATTRIBUTE, value.decode() if isinstance(value, bytes) else str(value))

    def make_to_dict(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(original)
        def to_dict(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
            found = original(self, *args, **kwargs)
            if runtime.armed:
                write(self, found)
            return found

        return to_dict

    def make_restore(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def restore(self: Any, raw_data: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, raw_data, *args, **kwargs)
            if runtime.armed:
                read(self, raw_data)
            return result

        return restore

    runtime.wrap(module.Job, "to_dict", make_to_dict)
    runtime.wrap(module.Job, "restore", make_restore)
