"""What a story lacks, said plainly: a reader must be able to tell "it did not happen" from "it is not here (yet)"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chegou_otel.local.jobs import RETRIED, Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chegou_otel.local.records import Records, Span

SKEW_NS: Final = 2_000_000


def notes(records: Records, jobs: Sequence[Job]) -> tuple[str, ...]:
    """One sentence per gap."""
    orphans = _orphans(records.spans)
    return (*_missing_parents(orphans), *_unfinished(jobs, orphans), *_skew(records.spans))


def _orphans(spans: Sequence[Span]) -> list[Span]:
    known = {(span.trace_id, span.span_id) for span in spans}
    return [span for span in spans if span.parent_id and (span.trace_id, span.parent_id) not in known]


def lost(spans: Sequence[Span]) -> list[Span]:
    """Spans whose parent should be here. A request's caller may be anybody."""
    return [span for span in _orphans(spans) if span.kind != "SERVER"]


def _missing_parents(orphans: Sequence[Span]) -> Iterator[str]:
    inbound = [span for span in orphans if span.kind == "SERVER"]
    missing = len(orphans) - len(inbound)
    if inbound:
        yield f"{_many(len(inbound), 'request')} came from a caller that is not in here"
    if missing:
        yield f"{_many(missing, 'span')} {'have missing parents' if missing > 1 else 'has a missing parent'}: not arrived yet, or lost"


def _unfinished(jobs: Sequence[Job], orphans: Sequence[Span]) -> Iterator[str]:
    for job in jobs:
        if job.state == "waiting":
            working = job.producer is not None and any(
                span.trace_id == job.producer.trace_id and span.kind != "SERVER" and span.start >= job.producer.end for span in orphans
            )
            yield f"job {job.id} ({job.name}) is {'still running' if working else 'enqueued; no run of it has arrived'}"
        elif job.state == RETRIED:
            of = f" of {job.most_attempts}" if job.most_attempts else ""
            yield f"job {job.id} ({job.name}): attempt {job.attempt + 1}{of} is still to come"


def _skew(spans: Sequence[Span]) -> Iterator[str]:
    """A child cannot begin before its parent: then two clocks differ."""
    known = {(span.trace_id, span.span_id): span for span in spans}
    early = [(known[span.trace_id, span.parent_id], span) for span in spans if (span.trace_id, span.parent_id) in known]
    worst = max((parent.start - child.start for parent, child in early), default=0)
    if worst > SKEW_NS:
        yield f"clocks differ by at least {worst / 1e6:.0f} ms between the machines of this story"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
