"""Consumer spans: one per execution, from the moment a worker performs the job until its outcome is stored.

The span's ID follows from the execution's, so whoever tells the end (the work-horse, its parent, an adopter) means the same span.
In a work-horse every change of the span is also a frame: what was set before a SIGKILL is on the span that the parent tells.
"""

from __future__ import annotations

import functools
import os
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from hashlib import blake2b
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Status, StatusCode
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation as _correlation
from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.integrations.redis import QUIET
from chegou_otel.integrations.rq import resources, shape, untold
from chegou_otel.integrations.rq.carrier import function_of
from chegou_otel.integrations.rq.claims import Claims
from chegou_otel.integrations.rq.enqueue import MANY, system
from chegou_otel.integrations.rq.execution import Execution
from chegou_otel.integrations.rq.metrics import Measures
from chegou_otel.integrations.rq.outcomes import FAILED, outcome_of
from chegou_otel.integrations.rq.quiet import loud, make_loud, make_quiet, make_worker
from chegou_otel.integrations.rq.teller import Teller
from chegou_otel.signals.encoding import Safe, Static
from chegou_otel.signals.errors import type_name
from chegou_otel.signals.logs import correlation_block
from chegou_otel.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from chegou_otel._runtime import Runtime

_CONSUMER: Final = 4
#: What of a context is not the job's: whoever runs it there may be at something else.
_ANOTHER_S: Final = (_SPAN_KEY, _correlation.KEY, MANY)
_MAX_CACHED: Final = 2_000
_CALLBACKS: Final = ("execute_success_callback", "execute_failure_callback", "execute_stopped_callback")
#: RQ gives an execution up when it heard nothing of it for so long, at the least.
_HEARTBEAT_NS: Final = 60 * 10**9


class Executions:
    """Consumer spans and what counts them."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.tracer = runtime.tracer("chegou_otel.rq")
        self.measures = Measures(runtime)
        self._statics: dict[tuple[str, str], Static] = {}
        #: What a thread is at: a web server's may each be at a job of their own, on queues that do not wait for workers.
        self._current: ContextVar[Execution | None] = ContextVar("chegou-otel-rq-execution", default=None)
        self.claims = Claims()
        #: Told of a start, a change, an end, so that they are frames too: what a killed process did is told by another.
        self.teller: Teller | None = None
        #: What the parent made ready for the work-horse that it is about to fork.
        self.prepared: Execution | None = None

    @property
    def current(self) -> Execution | None:
        """What this thread, or greenlet, is at."""
        return self._current.get()

    def _enter(self, execution: Execution) -> None:
        execution.token = attach(execution.context)
        execution.outer = self._current.get()
        self._current.set(execution)

    # -- a run ---------------------------------------------------------------------------------------------------------

    @guarded
    def begin(self, worker: Any, job: Any, queue: Any, since: datetime | None = None, execution: Any = None) -> Execution:
        """Start the consumer span and make it current, with RQ's own Redis commands silenced. ``since``: when the run began."""
        made, self.prepared = self.prepared, None
        teller = self.teller
        if made is not None and made.job is job and made.made is not None and teller is not None and teller.forked:
            # In a work-horse whose parent has made all of it: what is left is what only the work-horse knows.
            made.start = made.span._start_time = time_ns()
            made.used = resources.begin_forked()
            self._enter(made)
            teller.began(made)
            return made
        if made is None or made.job is not job:
            ahead, made = made, self.make(worker, job, queue, since, execution)
            if ahead is not None and ahead.id == made.id:  # the same one, fetched again: what its parent has measured is measured
                made.wait, made.late = ahead.wait, ahead.late
        made.start = nanoseconds(since) if since else time_ns()
        if isinstance(made.span, Span):
            made.span._start_time = made.start
        made.used = resources.begin_forked() if self.teller is not None and self.teller.forked else resources.begin()
        if since:
            made.used = made.used._replace(cpu=0.0)  # since the fork: importing the job is part of its run
        self._enter(made)
        self.claims.know(job.connection)
        self._tell_began(made)
        return made

    @guarded
    def prepare(self, worker: Any, job: Any, queue: Any) -> None:
        """In the parent, before it forks: what is done here needs no page of its own in the child, where each costs a copy."""
        made = self.prepared = self.make(worker, job, queue)
        made.told = Teller.fixed(made, self.runtime.encoder.clean)
        made.watch()
        correlation_block(made.correlation)
        if made.function:
            made.measure_start()
            if type(made.span) is Span and made.id and made.span.tracer.state.processor is None:
                made.made = made.state()

    def make(self, worker: Any, job: Any, queue: Any, since: datetime | None = None, execution: Any = None) -> Execution:
        place = shape.place(job, self.runtime.settings.rq_trace_shape, since)
        known = place.correlation
        base = {key: value for key, value in get_current().items() if key not in _ANOTHER_S}
        if place.parent is not None:
            base[_SPAN_KEY] = NonRecordingSpan(place.parent)
        context = Context({**base, _correlation.KEY: known, QUIET: True})
        static = self.static(queue.name, function_of(job))
        asked = untold.asked(self.tracer, context, job, place)
        span: Any = self.tracer.begin(static, {**_facts(worker, job, since), **place.facts}, context=asked, links=place.links)
        place.take(span)
        own = getattr(execution_of(worker, job, execution), "id", "")
        if own and isinstance(span, Span):
            span.span_bytes = span_id_of(own)
        shape.adopt(job, span, known)
        context = Context({**context, _SPAN_KEY: getattr(span, "inner", span)})
        made = Execution(self, span, context, static, job, queue.name, known)
        made.id = own
        if isinstance(span, Span):
            made.wait, made.late = span.extra.get("rq.job.queue_wait"), span.extra.get("rq.job.schedule_lateness")
        return made

    def finish(self, execution: Execution, outcome: str, more: Mapping[str, Any] | None = None, end: int | None = None) -> None:
        """The process that ran it tells its end, or leaves that to its parent. ``more``: what is known of one that another process ran."""
        execution.over = True
        self._current.set(execution.outer)
        execution.outer = None
        span, teller = execution.span, self.teller
        used = resources.spent(execution.used) if more is None else more
        if teller is not None and more is None and teller.leave(execution, outcome, used):
            return
        if teller is not None and not self._is_ours(teller, execution, outcome):
            span._end_time = time_ns()  # a cleaner thought it abandoned, and told
            teller.ended(execution)
            return
        if teller is not None:
            teller.ending(execution)
        if not self._tell(execution, outcome, used, end) and teller is not None:
            teller.leave_all(execution, outcome, used)
            return
        if more is not None and outcome in FAILED and not untold.is_told(span):
            facts = untold.facts_of(execution.queue, execution.function, outcome, span.extra, more)
            untold.tell(span.trace_bytes, span.span_bytes, execution.correlation, outcome, FAILED[outcome], facts)
        if teller is not None:
            teller.ended(execution)

    @guarded
    def tell_left(self, execution: Execution, outcome: str, start: int, end: int, used: Mapping[str, Any]) -> None:
        """In the parent: the end of what it made, as its work-horse left it. Whoever thought a long one abandoned may have told."""
        if end - start >= _HEARTBEAT_NS and not self.claims.take(execution.id, outcome, execution.job.connection, words=True):
            return
        execution.start = execution.span._start_time = start
        self._tell(execution, outcome, used, end)

    def _tell(self, execution: Execution, outcome: str, used: Mapping[str, Any], end: int | None) -> bool:
        """Set the outcome, end the span, count. ``False``: this is a work-horse, and the span found no room."""
        span = execution.span
        facts = {**used, "rq.job.status": Safe(outcome)}
        if isinstance(span, Span):
            span.extra.update(facts)
        else:
            span.set_attributes(facts)
        if execution.error is not None:
            span.fail(execution.error)
        elif outcome in FAILED:
            span.set_status(Status(StatusCode.ERROR, FAILED[outcome]))
        execution.measure_start()
        error = type_name(execution.error) if execution.error is not None else ""
        end = max(execution.start, end or time_ns())  # a clock may be set back
        left = self.teller if self.teller is not None and self.teller.parent and execution.id else None
        # The lock, so that no other thread's losses are taken for this span's.
        with nullcontext() if left is None else self.runtime.recorder._lock:
            before = 0 if left is None else left.lost()
            span.end(end)
            if left is not None and left.lost() > before:
                return False
        self.count(execution.queue, execution.function, outcome, (end - execution.start) / 1e9, used, error, span)
        return True

    def _is_ours(self, teller: Teller, execution: Execution, outcome: str) -> bool:
        """Whether this process tells the end. Asked only where somebody else may give us up: our worker died, or lost contact."""
        if not teller.parent or not execution.id or execution.claimed:
            return True
        if not execution.unstored and os.getppid() == teller.parent and time_ns() - execution.start < _HEARTBEAT_NS:
            return True
        return self.claims.take(execution.id, outcome, words=True)

    def count(
        self, queue: str, function: str, outcome: str, seconds: float | None, used: Mapping[str, Any], error: str = "", span: Any = None
    ) -> None:
        failed = error or (outcome if outcome in FAILED else "")
        cpu, memory = used.get("rq.job.cpu_time"), used.get("rq.job.memory_growth")
        self.measures.ended(queue, function, outcome, seconds, failed, cpu, memory, span)

    def told_name(self, execution: Execution) -> None:
        if self.teller is not None:
            self.teller.named(execution)

    def _tell_began(self, execution: Execution) -> None:
        """Say what the execution is, so that others can tell its end."""
        teller = self.teller
        if (teller is None or not teller.is_ours) and self.runtime.recorder.endpoints:
            teller = self.teller = Teller(self.runtime)
        if teller is not None:
            teller.began(execution)

    def static(self, queue: str, function: str) -> Static:
        known = self._statics.get((queue, function))
        if known is None:
            more = {"messaging.operation.type": "process", "messaging.operation.name": "process"}
            known = Static(f"process {queue}", _CONSUMER, {**system(queue, function), **more})
            if len(self._statics) < _MAX_CACHED:
                self._statics[queue, function] = known
        return known

    # -- where RQ is patched -------------------------------------------------------------------------------------------

    def patch_worker(self, module: ModuleType) -> None:
        runtime, worker = self.runtime, module.BaseWorker
        runtime.wrap(worker, "__init__", functools.partial(make_quiet, runtime))
        runtime.wrap(worker, "work", functools.partial(make_worker, runtime))
        runtime.wrap(worker, "perform_job", self._make_perform_job)
        runtime.wrap(worker, "handle_exception", self._make_handle_exception)
        for name in _CALLBACKS:
            if name in vars(module):  # RQ 3: functions, imported by name
                runtime.wrap(module, name, functools.partial(make_loud, runtime))

    def patch_job(self, module: ModuleType) -> None:
        runtime = self.runtime
        runtime.wrap(module.Job, "_execute", self.make_execute)
        for name in _CALLBACKS:
            if hasattr(module.Job, name):  # RQ 2: methods
                runtime.wrap(module.Job, name, functools.partial(make_loud, runtime))

    def make_execute(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The user's function runs loud: their own Redis calls are theirs to see."""

        @functools.wraps(original)
        def _execute(job: Any) -> Any:
            if not self.runtime.armed:
                return original(job)
            current = self.current
            if current is not None and (current.made is None or job._func_name != current.function):
                current.named(function_of(job) or job.func_name)
            return loud(original, job)

        return _execute

    def _make_perform_job(self, original: Callable[..., bool]) -> Callable[..., bool]:
        @functools.wraps(original)
        def perform_job(worker: Any, job: Any, queue: Any, *args: Any, **kwargs: Any) -> bool:
            given = args[0] if args else kwargs.get("execution")
            execution = self.begin(worker, job, queue, execution=given) if self.runtime.armed else None
            try:
                done = original(worker, job, queue, *args, **kwargs)
            except BaseException as error:
                if execution is not None:
                    execution.unstored = True
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


def execution_of(worker: Any, job: Any, given: Any = None) -> Any:
    """RQ's record of this run of a job: ``given``, if it is one of that job, or else the worker's newest. Redis is not asked."""
    if given is not None and getattr(given, "job_id", job.id) == job.id:
        return given
    several = getattr(worker, "executions", None)
    if isinstance(several, dict):  # RQ 3, whose ``worker.execution`` is the first of them, or what Redis says
        return next((each for each in reversed(several.values()) if each.job_id == job.id), None)
    return getattr(worker, "execution", None)


def span_id_of(execution_id: str) -> bytes:
    """The span ID that stands for an execution, whoever tells it."""
    return blake2b(execution_id.encode(), digest_size=8).digest()


def _facts(worker: Any, job: Any, since: datetime | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"messaging.message.id": Safe(job.id), "rq.worker.name": Safe(worker.name)}
    if job.enqueued_at is not None:
        facts["rq.job.queue_wait"] = max(0.0, ((aware(since) if since else datetime.now(UTC)) - aware(job.enqueued_at)).total_seconds())
    return facts


def nanoseconds(moment: datetime) -> int:
    return int(aware(moment).timestamp() * 1e9)


def aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
