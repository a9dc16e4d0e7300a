"""Consumer spans: one per execution, from the moment a worker performs the job until its outcome is stored.

The span's ID follows from the execution's, so whoever tells the end (the work-horse, its parent, an adopter) means the same span.
In a work-horse every change of the span is also a frame: what was set before a SIGKILL is on the span that the parent tells.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from hashlib import blake2b
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import NonRecordingSpan, Status, StatusCode
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation as _correlation
from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation, reset
from chegou_otel.integrations.redis import QUIET
from chegou_otel.integrations.rq import shape
from chegou_otel.integrations.rq.enqueue import function_of, system
from chegou_otel.integrations.rq.quiet import loud, make_loud, make_quiet
from chegou_otel.signals.encoding import Safe, Static
from chegou_otel.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import ModuleType

    from chegou_otel._runtime import Runtime

_CONSUMER: Final = 4
#: Jobs take from milliseconds to hours.
BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0)
#: Outcomes that are errors, in words.
FAILED: Final = {
    "failed": "the job failed",
    "timed_out": "the job timed out",
    "stopped": "the job was stopped",
    "killed": "the job was killed",
    "vanished": "the job's process left without a word",
}
_CALLBACKS: Final = ("execute_success_callback", "execute_failure_callback", "execute_stopped_callback")
_AGAIN: Final = frozenset({"queued", "scheduled"})


class Execution:
    """One run of one job, as this process sees it."""

    def __init__(
        self, executions: Executions, span: Any, token: Token[Context] | None, static: Static, job: Any, queue: str, known: Correlation
    ) -> None:
        self.executions = executions
        self.span = span
        self.token = token
        self.static = static
        self.queue = queue
        self.function = function_of(job)
        self.correlation = known
        self.start = time_ns()
        self.error: BaseException | None = None
        self.id = ""

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
            self.executions.told_static(self)

    @guarded
    def end(self, outcome: str) -> None:
        """The work-horse (or SimpleWorker) reached the end and knows the outcome."""
        if self.token is not None:
            reset(self.token)
        self.executions.finish(self, outcome)


class Executions:
    """Consumer spans and what counts them. ``hand_over`` is set in a work-horse (see ``workhorse``)."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.tracer = runtime.tracer("chegou_otel.rq")
        metrics = runtime.metrics
        self._duration = metrics.histogram("messaging.process.duration", "s", "Duration of job executions.", BUCKETS)
        self._wait = metrics.histogram("rq.job.queue_wait", "s", "Time from enqueue to start of a job.", BUCKETS)
        self._outcomes = metrics.counter("rq.job.executions", "{execution}", "Executions by outcome.")
        self._statics: dict[tuple[str, str], Static] = {}
        self.current: Execution | None = None
        #: Set by ``workhorse``: told of a start, a change, an end, so that they are frames too.
        self.teller: Any = None

    # -- a run ---------------------------------------------------------------------------------------------------------

    @guarded
    def begin(self, worker: Any, job: Any, queue: Any, since: datetime | None = None) -> Execution:
        """Start the consumer span and make it current, with RQ's own Redis commands silenced. ``since``: when the run began."""
        place = shape.place(job, self.runtime.settings.rq_trace_shape)
        known = place.correlation
        base = {key: value for key, value in get_current().items() if key not in (_SPAN_KEY, _correlation.KEY)}
        if place.parent is not None:
            base[_SPAN_KEY] = NonRecordingSpan(place.parent)
        context = Context({**base, _correlation.KEY: known, QUIET: True})
        static = self.static(queue.name, function_of(job))
        span: Any = self.tracer.begin(static, {**_facts(worker, job, since), **place.facts}, context=context, links=place.links)
        place.take(span)
        own = getattr(getattr(worker, "execution", None), "id", "")
        if own and type(span) is Span:
            span.span_bytes = span_id_of(own)
        shape.adopt(job, span, known)
        token = attach(Context({**context, _SPAN_KEY: getattr(span, "inner", span)}))
        execution = Execution(self, span, token, static, job, queue.name, known)
        execution.id = own
        wait = span.extra.get("rq.job.queue_wait") if type(span) is Span else None
        if wait is not None:
            self._wait.series((("messaging.destination.name", queue.name),)).record(wait)
        self.current = execution
        if self.teller is not None:
            self.teller.began(execution)
        return execution

    def finish(self, execution: Execution, outcome: str) -> None:
        """Set the outcome, end the span, count."""
        self.current = None
        span = execution.span
        span.set_attribute("rq.job.status", Safe(outcome))
        if execution.error is not None:
            span.fail(execution.error)
        elif outcome in FAILED:
            span.set_status(Status(StatusCode.ERROR, FAILED[outcome]))
        self.count(execution.queue, execution.function, outcome, (time_ns() - execution.start) / 1e9)
        span.end()
        if self.teller is not None:
            self.teller.ended(execution)

    def count(self, queue: str, function: str, outcome: str, seconds: float) -> None:
        labels = (
            ("messaging.system", "rq"),
            ("messaging.destination.name", queue),
            ("rq.job.function", function),
            ("rq.job.status", outcome),
        )
        self._duration.series(labels).record(seconds)
        self._outcomes.series(labels).add(1)

    def told_static(self, execution: Execution) -> None:
        if self.teller is not None:
            self.teller.began(execution)

    def static(self, queue: str, function: str) -> Static:
        known = self._statics.get((queue, function))
        if known is None:
            more = {"messaging.operation.type": "process", "messaging.operation.name": "process"}
            known = Static(f"process {queue}", _CONSUMER, {**system(queue, function), **more})
            self._statics[queue, function] = known
        return known

    # -- where RQ is patched -------------------------------------------------------------------------------------------

    def patch_worker(self, module: ModuleType) -> None:
        runtime, worker = self.runtime, module.BaseWorker
        for name in ("__init__", "work"):
            runtime.wrap(worker, name, functools.partial(make_quiet, runtime))
        runtime.wrap(worker, "perform_job", self._make_perform_job)
        runtime.wrap(worker, "handle_exception", self._make_handle_exception)
        for name in _CALLBACKS:
            if name in vars(module):  # RQ 3: functions, imported by name
                runtime.wrap(module, name, functools.partial(make_loud, runtime))

    def patch_job(self, module: ModuleType) -> None:
        """The user's function runs loud: their own Redis calls are theirs to see."""
        runtime = self.runtime

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def _execute(job: Any) -> Any:
                if not runtime.armed:
                    return original(job)
                if self.current is not None:
                    self.current.named(function_of(job) or job.func_name)
                return loud(original, job)

            return _execute

        runtime.wrap(module.Job, "_execute", make)
        for name in _CALLBACKS:
            if hasattr(module.Job, name):  # RQ 2: methods
                runtime.wrap(module.Job, name, functools.partial(make_loud, runtime))

    def _make_perform_job(self, original: Callable[..., bool]) -> Callable[..., bool]:
        @functools.wraps(original)
        def perform_job(worker: Any, job: Any, queue: Any, *args: Any, **kwargs: Any) -> bool:
            execution = self.begin(worker, job, queue) if self.runtime.armed else None
            try:
                done = original(worker, job, queue, *args, **kwargs)
            except BaseException as error:
                if execution is not None:
                    execution.failed_by(error)
                    execution.end("failed")
                raise
            if execution is not None:
                execution.end(outcome_of(job, execution.error, done=done))
            return done

        return perform_job

    def _make_handle_exception(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def handle_exception(worker: Any, job: Any, *exc_info: Any) -> Any:
            if self.runtime.armed and self.current is not None and len(exc_info) > 1 and isinstance(exc_info[1], BaseException):
                self.current.failed_by(exc_info[1])
            return original(worker, job, *exc_info)

        return handle_exception


def outcome_of(job: Any, error: BaseException | None, *, done: bool) -> str:
    """The truth about a finished ``perform_job``: finished, retried, timed_out or failed."""
    status = str(getattr(job._status, "value", job._status) or "")
    if status in _AGAIN and not (done and error is None and type(job._result).__name__ != "Retry"):
        return "retried"
    if done and error is None:  # with a repeat, it waits for its next run by now
        return "failed" if status == "failed" else "finished"
    return "timed_out" if error is not None and type(error).__name__ == "JobTimeoutException" else "failed"


def span_id_of(execution_id: str) -> bytes:
    """The span ID that stands for an execution, whoever tells it."""
    return blake2b(execution_id.encode(), digest_size=8).digest()


def _facts(worker: Any, job: Any, since: datetime | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"messaging.message.id": Safe(job.id), "rq.worker.name": Safe(worker.name)}
    if job.enqueued_at is not None:
        facts["rq.job.queue_wait"] = max(0.0, ((_aware(since) if since else datetime.now(UTC)) - _aware(job.enqueued_at)).total_seconds())
    return facts


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
