"""Where an execution stands: under the span that enqueued the job, or in a trace of its own with a link to it.

A job that was enqueued to run now continues the trace, and so do its retries, delayed or not. What was scheduled, repeated or
requeued by hand runs in a new trace, because hours may lie between, or somebody else's decision: its **round**. All attempts of a
round share one trace, whose ID follows from the producer's span and the round, so that nobody has to be asked for it.
"""

from __future__ import annotations

from datetime import UTC
from hashlib import blake2b
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.trace import Link
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel._context import get_current
from chegou_otel.correlation import Correlation, new_id, rng
from chegou_otel.integrations.rq import carrier
from chegou_otel.integrations.rq.carrier import Carrier, Round
from chegou_otel.signals.spans import Span

if TYPE_CHECKING:
    from datetime import datetime

    from opentelemetry.trace import SpanContext


class Place(NamedTuple):
    """Where an execution stands, and the how-manieth it is."""

    correlation: Correlation
    parent: SpanContext | None
    links: list[Link]
    #: Of the new trace; ``None``: whatever the tracer draws.
    trace_id: bytes | None
    facts: dict[str, Any]

    def take(self, span: Any) -> None:
        """Give ``span``, just begun, the trace that all attempts of this round share."""
        if self.trace_id is not None and isinstance(span, Span):
            span.trace_bytes = self.trace_id
            span._lazy_context = None


def place(job: Any, wanted: str, since: datetime | None = None) -> Place:
    """The place of the execution of ``job`` that began at ``since``, or begins now. ``wanted``: the setting ``rq_trace_shape``."""
    found = carrier.of(job)
    number = _repeat(job, found)
    current = _round(job, number)
    anew = number > 0 or current is not None or _requeued(job)
    facts = _attempts(job, found, current, number, anew=anew)
    due = carrier.due_of(job)
    if due is not None:
        facts["rq.job.schedule_lateness"] = max(0.0, (since.replace(tzinfo=since.tzinfo or UTC).timestamp() if since else time()) - due)
    if found is None:
        return Place(Correlation(new_id()), None, [], None, facts)
    origin, before = found.span_context, current.span_context if current else None
    if wanted == "parents" or (wanted == "auto" and found.shape == "parent" and not anew):
        return Place(found.correlation, origin, [Link(before)] if before and origin else [], None, facts)
    links = [Link(context) for context in (origin, before) if context]
    known = wanted == "auto" and found.span_id and (current is not None or not anew)
    trace_id = _trace_id(found, current.token if current else "") if known else None
    return Place(found.correlation, None, links, trace_id, facts)


def adopt(job: Any, span: Any, known: Correlation) -> None:
    """Nothing is known of ``job``: its story begins with ``span``, and goes on there when the job is retried."""
    if not getattr(job, carrier.ATTRIBUTE, None):
        carrier.attach(job, carried(span, known, job, "parent"))


def next_round(job: Any, *, again: bool = False) -> None:
    """A queue takes ``job`` once more. A repeat and a requeue by hand begin a round; a retry and a promotion go on with theirs.

    ``again``: by the public way in, which RQ itself does not use for a job that has run.
    """
    found = carrier.of(job)
    if found is None:
        return
    number = _repeat(job, found)
    last = carrier.round_of(job)
    repeated = number != (last.number if last else 0)
    if not repeated and not _requeued(job) and not (again and job.worker_name):
        return
    trace_id, span_id, flags = ids(get_current().get(_SPAN_KEY))
    setattr(
        job, carrier.ROUND_ATTRIBUTE,
        Round(
            "repeat" if repeated else "again", number, int(job.retries_left or 0), _returned(job), f"{rng.getrandbits(32):08x}",
            trace_id, span_id, flags,
        ).encode(),
    )  # fmt: skip


def scheduled(job: Any, due: Any) -> None:
    """``job`` is to wait until ``due``."""
    setattr(job, carrier.DUE_ATTRIBUTE, f"{due.timestamp():.3f}")


def queued(job: Any) -> None:
    """``job`` is to run now: it comes from the schedule, whose time it keeps, or that is past."""
    if getattr(job, carrier.DUE_ATTRIBUTE, None) and str(getattr(job._status, "value", job._status)) != "scheduled":
        setattr(job, carrier.DUE_ATTRIBUTE, "0")


def carried(span: Any, known: Correlation, job: Any, shape: str, cron: str = "") -> Carrier:
    """The carrier for a job whose story ``span`` tells."""
    repeats = int(getattr(job, "repeats_left", 0) or 0)
    return Carrier(*ids(span), known.id, int(job.retries_left or 0), shape, repeats, cron, carrier.function_of(job))


def ids(span: Any) -> tuple[str, str, int]:
    """Trace ID, span ID and flags of a span; empty when there is none."""
    if isinstance(span, Span):
        return span.trace_bytes.hex(), span.span_bytes.hex(), span.flags
    context = span.get_span_context() if span is not None else None
    if context is None or not context.is_valid:
        return "", "", 0
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags)


def _attempts(job: Any, found: Carrier | None, current: Round | None, number: int, *, anew: bool) -> dict[str, Any]:
    """Which attempt of how many, counted from where the round began; and which repeat."""
    left = int(job.retries_left or 0)
    first = max(left, current.retries if current else left if anew or found is None else found.retries)
    returned = _returned(job) - (current.returned if current else _returned(job) if anew else 0)
    attempt = first - left + max(0, returned) + 1
    facts: dict[str, Any] = {"rq.job.attempt": attempt, "rq.job.max_attempts": max(first + 1, attempt)}
    if number:
        facts["rq.job.repeat"] = number
    if found and found.cron:
        facts["rq.cron.name"] = found.cron
    return facts


def _repeat(job: Any, found: Carrier | None) -> int:
    """Which repeat of the job this is; 0 for its first run."""
    return max(0, found.repeats - int(job.repeats_left or 0)) if found and found.repeats else 0


def _round(job: Any, number: int) -> Round | None:
    """The round as it was written down, if it is the one that the job is in (another version may have begun one since)."""
    last = carrier.round_of(job)
    return last if last is not None and last.number == number else None


def _requeued(job: Any) -> bool:
    """Whether the job was requeued by hand: RQ forgets then when it started, but not who worked on it."""
    return job.started_at is None and bool(job.worker_name)


def _returned(job: Any) -> int:
    return int(getattr(job, "number_of_retries", 0) or 0)


def _trace_id(found: Carrier, token: str) -> bytes:
    return blake2b(f"{found.trace_id}{found.span_id}{token}".encode(), digest_size=16).digest()
