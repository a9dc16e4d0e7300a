"""What travels with a job: versioned fields of ours in the job's own hash, out of reach of code that assigns ``job.meta``.

The carrier is captured once, when a queue first takes the job, and never rewritten: retries, dependents and the scheduler keep the
originator. A job without it (enqueued before this package, or by another version) runs as a new story. The round is written when a
job begins anew (a repeat, a requeue by hand; see ``shape``), the time when it is due each time that it is scheduled.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote

from opentelemetry.trace import SpanContext, TraceFlags

from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation, is_well_formed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from chegou_otel._runtime import Runtime

#: The field in the job's hash, and the attribute on the ``Job``: ``None`` on a new job, empty on one that came from Redis without it.
FIELD: Final = "chegou_otel"
ATTRIBUTE: Final = "_chegou_otel_carrier"
#: The same for the round.
ROUND_FIELD: Final = "chegou_otel_round"
ROUND_ATTRIBUTE: Final = "_chegou_otel_round"
#: And for the time at which a scheduled job is due, in seconds since 1970; ``0`` once that is past.
DUE_FIELD: Final = "chegou_otel_due"
DUE_ATTRIBUTE: Final = "_chegou_otel_due"
_FIELDS: Final = ((FIELD, ATTRIBUTE), (ROUND_FIELD, ROUND_ATTRIBUTE), (DUE_FIELD, DUE_ATTRIBUTE))
_VERSION: Final = "1"
_PARTS: Final = 7
_ROUND_PARTS: Final = 9
#: Read without the rest, wherever a job's function is asked for.
_FUNCTION: Final = ";function="


class Carrier(NamedTuple):
    """The originator of a job.

    Attributes:
        trace_id: 32 hex digits, or empty when nothing was recorded.
        span_id: 16 hex digits: the producer span.
        flags: The W3C trace flags.
        correlation_id: Constant through retries, repeats, dependents and callbacks.
        retries: How many retries the job had when it was enqueued; from it follows the attempt's number.
        shape: ``parent`` for a job enqueued to run now, ``link`` for one that was scheduled.
        repeats: How many repeats it had when it was enqueued.
        cron: The name of the cron job that enqueued it.
        function: The dotted name of its function, which a worker would have to unpickle the job to learn.
    """

    trace_id: str
    span_id: str
    flags: int
    correlation_id: str
    retries: int
    shape: str
    repeats: int = 0
    cron: str = ""
    function: str = ""

    def encode(self) -> str:
        text = f"{_VERSION};{self.trace_id};{self.span_id};{self.flags:02x};{self.correlation_id};{self.retries};{self.shape}"
        if self.repeats:  # what few jobs have is named; who does not know the name ignores it
            text += f";repeats={self.repeats}"
        if self.cron:
            text += f";cron={quote(self.cron)}"
        return f"{text}{_FUNCTION}{quote(self.function)}" if self.function else text

    @property
    def span_context(self) -> SpanContext | None:
        return _span_context(self.trace_id, self.span_id, self.flags)

    @property
    def correlation(self) -> Correlation:
        return Correlation(self.correlation_id, "job")


class Round(NamedTuple):
    """A job that begins anew, as itself.

    Attributes:
        kind: ``repeat``, or ``again`` when it was requeued by hand or by a scheduler.
        number: Which repeat: 0 before the first.
        retries: How many retries were left when the round began.
        returned: How many times it had returned a ``Retry`` by then.
        token: Tells rounds apart.
        trace_id: With ``span_id`` and ``flags``: the span that began the round, such as the run before it.
    """

    kind: str
    number: int
    retries: int
    returned: int
    token: str
    trace_id: str
    span_id: str
    flags: int

    def encode(self) -> str:
        counts = f"{self.number};{self.retries};{self.returned}"
        return f"{_VERSION};{self.kind};{counts};{self.token};{self.trace_id};{self.span_id};{self.flags:02x}"

    @property
    def span_context(self) -> SpanContext | None:
        return _span_context(self.trace_id, self.span_id, self.flags)


def _span_context(trace_id: str, span_id: str, flags: int) -> SpanContext | None:
    if not trace_id:
        return None
    context = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(flags))
    return context if context.is_valid else None


def decode(text: str) -> Carrier | None:
    """The carrier in ``text``; ``None`` for another version's, or garbage."""
    parts = text.split(";")
    if len(parts) < _PARTS or parts[0] != _VERSION or not is_well_formed(parts[4]):
        return None
    more = dict(part.partition("=")[::2] for part in parts[_PARTS:])
    try:
        int(parts[1] or "0", 16), int(parts[2] or "0", 16)
        return Carrier(
            parts[1], parts[2], int(parts[3], 16), parts[4], int(parts[5]), parts[6],
            int(more.get("repeats", 0)), unquote(more.get("cron", "")), unquote(more.get("function", "")),
        )  # fmt: skip
    except ValueError:
        return None


def decode_round(text: str) -> Round | None:
    """The round in ``text``; ``None`` for another version's, or garbage."""
    parts = text.split(";")
    if len(parts) < _ROUND_PARTS or parts[0] != _VERSION:
        return None
    try:
        int(parts[6] or "0", 16), int(parts[7] or "0", 16)
        return Round(parts[1], int(parts[2]), int(parts[3]), int(parts[4]), parts[5], parts[6], parts[7], int(parts[8], 16))
    except ValueError:
        return None


def of(job: Any) -> Carrier | None:
    """The carrier of a job in hand."""
    text = getattr(job, ATTRIBUTE, None)
    return decode(text) if isinstance(text, str) else None


def function_of(job: Any) -> str:
    """The function's dotted name as far as it is known; nothing is unpickled to learn it."""
    name = getattr(job, "_func_name", None)
    if isinstance(name, str):
        return name
    text = getattr(job, ATTRIBUTE, None)
    if not isinstance(text, str) or not text.startswith(f"{_VERSION};"):
        return ""
    return unquote(text.partition(_FUNCTION)[2].partition(";")[0])


def round_of(job: Any) -> Round | None:
    """The round that a job in hand is in, as far as somebody wrote it down."""
    text = getattr(job, ROUND_ATTRIBUTE, None)
    return decode_round(text) if isinstance(text, str) else None


def due_of(job: Any) -> float | None:
    """When a job in hand was due, if it was scheduled."""
    text = getattr(job, DUE_ATTRIBUTE, None)
    try:
        return float(text) or None if isinstance(text, str) else None
    except ValueError:
        return None


def attach(job: Any, carrier: Carrier) -> None:
    setattr(job, ATTRIBUTE, carrier.encode())


def read(job: Any, raw: Mapping[Any, Any]) -> None:
    """Put what a job's hash holds of ours on the job."""
    for field, attribute in _FIELDS:
        value = raw.get(field.encode()) or raw.get(field)
        if value:
            setattr(job, attribute, value.decode() if isinstance(value, bytes) else str(value))
    if getattr(job, ATTRIBUTE, None) is None:
        setattr(job, ATTRIBUTE, "")


def fetch(job: Any) -> None:
    """Ask Redis for a job that was loaded before anybody here could read along."""
    names = [field for field, _ in _FIELDS]
    read(job, dict(zip(names, job.connection.hmget(job.key, names), strict=True)))


def write(job: Any, found: dict[str, Any]) -> None:
    """Put what a job carries into its hash."""
    for field, attribute in _FIELDS:
        text = getattr(job, attribute, None)
        if text:
            found[field] = text


def patch(runtime: Runtime, module: ModuleType) -> None:
    """``Job.to_dict`` writes the fields, ``Job.restore`` reads them."""
    guarded_write, guarded_read = guarded(write), guarded(read)

    def make_to_dict(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(original)
        def to_dict(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
            found = original(self, *args, **kwargs)
            if runtime.armed:
                guarded_write(self, found)
            return found

        return to_dict

    def make_restore(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def restore(self: Any, raw_data: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, raw_data, *args, **kwargs)
            if runtime.armed:
                guarded_read(self, raw_data)
            return result

        return restore

    runtime.wrap(module.Job, "to_dict", make_to_dict)
    runtime.wrap(module.Job, "restore", make_restore)


def is_patched(runtime: Runtime) -> bool:
    """Whether jobs carry anything; without that, whoever enqueues cannot tell a new job from one that comes again."""
    return any(patch.name == "restore" and patch.owner.__name__ == "Job" for patch in runtime.patches)
