"""One run of one job, as the process sees it that runs it or that forks the one that does."""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any

from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation, reset
from chegou_otel.integrations.rq import resources
from chegou_otel.integrations.rq.carrier import function_of
from chegou_otel.integrations.rq.teller import Watched, WatchedEvents
from chegou_otel.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Event

    from chegou_otel.integrations.rq.executions import Executions
    from chegou_otel.signals.encoding import Static


class Execution:
    """One run of one job, as this process sees it."""

    def __init__(
        self, executions: Executions, span: Any, context: Context, static: Static, job: Any, queue: str, known: Correlation
    ) -> None:
        self.executions = executions
        self.span = span
        #: What is current while the job runs.
        self.context = context
        self.token: Token[Context] | None = None
        self.job = job
        self.static = static
        self.queue = queue
        self.function = function_of(job)
        self.correlation = known
        self.start = time_ns()
        self.error: BaseException | None = None
        #: Seconds since the enqueue, and since the time it was scheduled for, until they were measured.
        self.wait: float | None = None
        self.late: float | None = None
        self.id = ""
        #: What ``began`` says of it, encoded ahead.
        self.told = ""
        #: What the span was when a parent had made it, and how often it was changed since.
        self.made: tuple[Any, ...] | None = None
        self.changes = 0
        #: What this process had used when the job began.
        self.used = resources.NOTHING
        #: The one that was under way: a job may run another on a queue that does not wait for workers.
        self.outer: Execution | None = None
        self.over = False
        #: Whether RQ could not store the outcome: to others it goes on, until they give it up.
        self.unstored = False
        #: Whether the end was claimed before it began here: by whoever found it abandoned.
        self.claimed = False

    def watch(self) -> None:
        """From here on what the span becomes is told at once, if there is a teller."""
        span = self.span
        if isinstance(span, Span) and self.id and type(span.extra) is not Watched:
            span.extra = Watched(span.extra, self)
            span._event_list = WatchedEvents(span._event_list or (), self)

    def state(self) -> tuple[Any, ...]:
        """What a span is that has not ended; compared, not read."""
        span = self.span
        return (span.static, span._status, span._end_time, span._dropped, len(span.extra), len(span._link_list or ()), self.changes)

    def is_as_made(self) -> bool:
        """Whether nothing but the end is to be told of what a parent made."""
        if self.made is None or self.error is not None or self.wait is not None or self.late is not None:
            return False
        return self.span.tracer.state.processor is None and self.made == self.state()

    def changed(self, key: str, value: Any) -> None:
        self.changes += 1
        if self.executions.teller is not None:
            self.executions.teller.changed(self.id, key, value)

    def happened(self, event: Event) -> None:
        self.changes += 1
        if self.executions.teller is not None:
            self.executions.teller.happened(self.id, event)

    @guarded
    def failed_by(self, error: BaseException) -> None:
        """RQ handles an exception of the job's; the first one is the job's own."""
        self.error = self.error or error

    @guarded
    def named(self, function: str) -> None:
        """The function is known (RQ unpickled the job to run it)."""
        if function and function != self.function:
            self.function = function
            self.static = self.executions.static(self.queue, function)
            self.span.set_static(self.static)
            self.executions.told_name(self)
        self.measure_start()

    def measure_start(self) -> None:
        """Once, as soon as it is known which function waited."""
        wait, late, self.wait, self.late = self.wait, self.late, None, None
        self.executions.measures.started(self.queue, self.function, wait, late, self.span)

    @guarded
    def end(self, outcome: str, more: Mapping[str, Any] | None = None, end: int | None = None) -> None:
        """The work-horse (or SimpleWorker) reached the end and knows the outcome."""
        if self.token is not None:
            reset(self.token)
        self.executions.finish(self, outcome, more, end)
