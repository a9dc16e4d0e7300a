"""The story of an ID: requests, SQL, Redis, outbound calls, jobs with their attempts, and logs, in one order of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from chegou_otel.local.completeness import lost, notes
from chegou_otel.local.jobs import Job, jobs_of
from chegou_otel.local.records import JOB, Log, Records, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ALIKE: Final = 3  # so many similar statements, one after the other, become one line


class Source(Protocol):
    """Where records come from."""

    def find(self, identifier: str) -> Records:
        """Everything of all traces that have this correlation ID, trace ID or job ID."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the waterfall: a span, or a run of similar ones (then `spans` has more than one)."""

    spans: tuple[Span, ...]
    depth: int

    @property
    def span(self) -> Span:
        """The first."""
        return self.spans[0]

    @property
    def start(self) -> int:
        """When it began."""
        return self.span.start

    @property
    def end(self) -> int:
        """When the last of them ended."""
        return max(span.end for span in self.spans)

    @property
    def failed(self) -> bool:
        """Whether one of them did."""
        return any(span.failed for span in self.spans)


@dataclass(frozen=True, slots=True)
class Line:
    """A log record in the waterfall."""

    log: Log
    depth: int

    @property
    def start(self) -> int:
        """When it was written."""
        return self.log.time

    @property
    def end(self) -> int:
        """The same moment."""
        return self.log.time


@dataclass(frozen=True, slots=True)
class Lane:
    """What one request, one run of a job, or one other root did; or the logs that belong to no span that is known."""

    lines: tuple[Row | Line, ...]

    @property
    def root(self) -> Span | None:
        """What it is about."""
        first = self.lines[0]
        return first.span if isinstance(first, Row) else None

    @property
    def first(self) -> Span | Log:
        """Its first record: it knows the service and the trace."""
        first = self.lines[0]
        return first.span if isinstance(first, Row) else first.log

    @property
    def start(self) -> int:
        """When it began."""
        return min(line.start for line in self.lines)

    @property
    def end(self) -> int:
        """When it ended."""
        return max(line.end for line in self.lines)


@dataclass(frozen=True, slots=True)
class Count:
    """How many, and how long altogether."""

    number: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The story in numbers. `outcome` is one of ok, recovered, running, failed."""

    outcome: str
    total_seconds: float
    active_seconds: float
    queue_wait_seconds: float
    attempts: int
    errors: int
    error_logs: int
    sql: Count
    redis: Count
    outbound: Count


@dataclass(frozen=True, slots=True)
class Story:
    """All of it."""

    identifier: str
    correlation_id: str
    records: Records
    lanes: tuple[Lane, ...]
    jobs: tuple[Job, ...]
    verdict: Verdict
    notes: tuple[str, ...]

    @property
    def entry(self) -> Span | None:
        """What it began with: a request when there is one."""
        spans = [lane.root for lane in self.lanes if lane.root]
        return next((span for span in spans if span.kind == "SERVER"), spans[0] if spans else None)

    @property
    def pending(self) -> bool:
        """Whether something is still to come: a run of a job, or the parent of what is here."""
        return any(job.open for job in self.jobs) or bool(lost(self.records.spans))

    @property
    def traces(self) -> list[str]:
        """The trace IDs, in order of time."""
        spans = sorted(self.records.spans, key=lambda span: span.start)
        return list(dict.fromkeys([s.trace_id for s in spans] + [log.trace_id for log in self.records.logs if log.trace_id]))


def build(source: Source, identifier: str) -> Story | None:
    """The story of a correlation ID, a trace ID or a job ID; None when nothing is known about it."""
    records = source.find(identifier)
    correlation = _correlation(records, identifier)
    if correlation and correlation != identifier:
        records = source.find(correlation)
    records = _only(records, correlation)
    return tell(records, identifier, correlation) if records else None


def _correlation(records: Records, identifier: str) -> str:
    """Which correlation ID is meant: the ID itself, that of the job, or the only one of the trace."""
    both: list[Span | Log] = [*records.spans, *records.logs]
    known = {record.correlation_id for record in both if record.correlation_id}
    if identifier in known:
        return identifier
    job = {span.correlation_id for span in records.spans if span.get(JOB) == identifier and span.correlation_id}
    return next(iter(job or known)) if len(job or known) == 1 else ""


def _only(records: Records, correlation: str) -> Records:
    """Another correlation ID in the same trace is another story; a record without one belongs to its trace."""
    if not correlation:
        return records
    spans = tuple(span for span in records.spans if span.correlation_id in (correlation, ""))
    logs = tuple(log for log in records.logs if log.correlation_id in (correlation, ""))
    return Records(spans, logs, records.partial)


def tell(records: Records, identifier: str, correlation: str) -> Story:
    """Put records into order."""
    jobs = jobs_of(records.spans)
    said = (*records.partial, *notes(records, jobs))
    return Story(
        identifier=identifier,
        correlation_id=correlation,
        records=records,
        lanes=tuple(_lanes(records)),
        jobs=jobs,
        verdict=_verdict(records, jobs),
        notes=said,
    )


# --- lanes ----------------------------------------------------------------------------------------------------------------------------


Key = tuple[str, str]


def _key(span: Span) -> Key:
    return span.trace_id, span.span_id


@dataclass
class _Family:
    """Who is below whom."""

    children: dict[Key, list[Span]]
    logs: dict[Key, list[Log]]

    def plain(self, span: Span) -> bool:
        """A healthy statement with nothing below it: it may stand for its likes."""
        key = _key(span)
        return bool(span.get("db.query.text")) and not (span.failed or key in self.children or key in self.logs)

    def below(self, span: Span) -> list[tuple[Span, ...] | Log]:
        """Children and logs, in order of time."""
        both: list[tuple[Span, ...] | Log] = [*self._runs(self.children.get(_key(span), ())), *self.logs.get(_key(span), ())]
        return sorted(both, key=lambda each: each.time if isinstance(each, Log) else each[0].start)

    def _runs(self, siblings: Iterable[Span]) -> Iterator[tuple[Span, ...]]:
        """Neighbours with the same statement as one, when there are several."""
        groups: list[list[Span]] = []
        for span in siblings:
            before = groups[-1][-1] if groups else None
            if before and self.plain(before) and self.plain(span) and _alike(before, span):
                groups[-1].append(span)
            else:
                groups.append([span])
        for group in groups:
            yield from [tuple(group)] if len(group) >= ALIKE else [(span,) for span in group]


def _alike(one: Span, other: Span) -> bool:
    return (one.name, one.get("db.query.text")) == (other.name, other.get("db.query.text"))


def _lanes(records: Records) -> list[Lane]:
    """A lane begins at a root, at every server span and at every run of a job."""
    known = {_key(span) for span in records.spans}
    family = _Family({}, {})
    roots: list[Span] = []
    for span in sorted(records.spans, key=lambda span: (span.start, -span.end)):
        parent = (span.trace_id, span.parent_id)
        if parent not in known or span.kind in ("SERVER", "CONSUMER"):
            roots.append(span)
        else:
            family.children.setdefault(parent, []).append(span)
    loose: dict[str, list[Line]] = {}
    for log in sorted(records.logs, key=lambda log: log.time):
        if (log.trace_id, log.span_id) in known:
            family.logs.setdefault((log.trace_id, log.span_id), []).append(log)
        else:
            loose.setdefault(log.trace_id, []).append(Line(log, 0))
    seen: set[Key] = set()
    lanes = [Lane(tuple(_lines(root, family, seen))) for root in roots if _key(root) not in seen]
    # Spans that are each other's parents have no root: what is left begins a lane where it began.
    lanes += [Lane(tuple(_lines(span, family, seen))) for span in records.spans if _key(span) not in seen]
    lanes += [Lane(tuple(lines)) for lines in loose.values()]
    return sorted(lanes, key=lambda lane: lane.start)


def _lines(root: Span, family: _Family, seen: set[Key]) -> Iterator[Row | Line]:
    """Depth first. Not recursive: a trace may be deeper than Python's stack, and a broken one may be a circle."""
    stack: list[tuple[tuple[Span, ...] | Log, int]] = [((root,), 0)]
    while stack:
        each, depth = stack.pop()
        if isinstance(each, Log):
            yield Line(each, depth)
        elif not seen.intersection(map(_key, each)):
            seen.update(map(_key, each))
            yield Row(each, depth)
            stack += [(below, depth + 1) for below in reversed(family.below(each[0]))]


# --- verdict --------------------------------------------------------------------------------------------------------------------------


def is_sql(span: Span) -> bool:
    """A statement to a relational database."""
    return span.kind == "CLIENT" and bool(span.get("db.system.name", "db.system")) and not is_redis(span)


def is_redis(span: Span) -> bool:
    """A command to Redis or Valkey."""
    return span.kind == "CLIENT" and span.get("db.system.name", "db.system") in ("redis", "valkey")


def is_outbound(span: Span) -> bool:
    """An HTTP request to somebody else."""
    return span.kind == "CLIENT" and bool(span.get("http.request.method", "http.method"))


def _verdict(records: Records, jobs: Sequence[Job]) -> Verdict:
    spans = records.spans
    times = [(span.start, span.end) for span in spans] or [(log.time, log.time) for log in records.logs]
    return Verdict(
        outcome=_outcome(records, jobs),
        total_seconds=(max(end for _, end in times) - min(start for start, _ in times)) / 1e9,
        active_seconds=sum(end - start for start, end in busy(spans)) / 1e9,
        queue_wait_seconds=sum(job.queue_wait for job in jobs),
        attempts=sum(len(job.attempts) for job in jobs),
        errors=sum(span.failed for span in spans),
        error_logs=sum(log.failed for log in records.logs),
        sql=_count(filter(is_sql, spans)),
        redis=_count(filter(is_redis, spans)),
        outbound=_count(filter(is_outbound, spans)),
    )


def _outcome(records: Records, jobs: Sequence[Job]) -> str:
    known = {(span.trace_id, span.span_id) for span in records.spans}
    begun = [span for span in records.spans if span.kind == "SERVER" or (span.trace_id, span.parent_id) not in known]
    if any(span.failed for span in begun if span.kind != "CONSUMER") or any(job.state == "failed" for job in jobs):
        return "failed"
    if any(job.open for job in jobs):
        return "running"
    return "recovered" if any(job.failures for job in jobs) else "ok"


def _count(spans: Iterable[Span]) -> Count:
    each = [span.seconds for span in spans]
    return Count(len(each), sum(each))


def busy(spans: Iterable[Span]) -> list[tuple[int, int]]:
    """When anything was going on: the union of all spans."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((span.start, max(span.start, span.end)) for span in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
