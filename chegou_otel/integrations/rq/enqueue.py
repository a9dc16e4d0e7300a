"""Producer spans: one when a queue first takes a job, by whichever way in.

The base class is patched: the scheduler and the registries build plain queues. What passes here again (a retry, a dependent, the
scheduler's promotion) has its carrier already and makes no span.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, create_key
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation as _correlation
from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation, new_id, reset
from chegou_otel.integrations.redis import QUIET
from chegou_otel.integrations.rq import carrier, shape
from chegou_otel.integrations.rq.metrics import Measures
from chegou_otel.integrations.rq.quiet import make_quiet, wrap_present
from chegou_otel.signals.encoding import Safe, Static

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import ModuleType

    from chegou_otel._runtime import Runtime

#: On a job while a queue takes it.
_TAKING: Final = "_chegou_otel_taking"
#: In a context of a cron job's tick: that job's name.
CRON: Final = create_key("chegou-otel-rq-cron")
#: In a context of ``enqueue_many``: its batch.
MANY: Final = create_key("chegou-otel-rq-enqueue-many")
_PRODUCER: Final = 3
_MAX_CACHED: Final = 2_000
#: How a job enters a queue for the first time, and what its run will be to the span that enqueued it.
_WAYS_IN: Final = {"enqueue_job": "parent", "_enqueue_job": "parent", "_enqueue_rate_limited_job": "parent", "schedule_job": "link"}
#: Not in every version of RQ.
_OPTIONAL: Final = frozenset({"_enqueue_rate_limited_job"})


class Taking:
    """A job being taken by a queue."""

    __slots__ = ("counted", "job", "span", "token")

    def __init__(self, job: Any, span: Any, counted: Any, token: Token[Context]) -> None:
        self.job = job
        self.span = span
        self.counted = counted
        self.token: Token[Context] | None = token

    @guarded
    def end(self, error: BaseException | None, batch: Batch | None = None) -> None:
        """The queue has taken it, or has not. ``batch``: it was put into a pipeline, and is settled with that."""
        token, self.token = self.token, None
        if token is None:
            return  # a synchronous queue took it, ran it, and returns
        reset(token)
        held = vars(self.job)
        held.pop(_TAKING, None)
        job_id = held.get("_id")
        # Reading ``job.id`` makes one, and RQ tells by its absence that the user chose none; by now RQ has read it.
        if job_id:
            self.span.set_attribute("messaging.message.id", Safe(job_id))
        if batch is not None and error is None:
            batch.taken.append(self)
        else:
            self.settle(error)

    @guarded
    def settle(self, error: BaseException | None) -> None:
        if error is None:
            self.counted.add(1)
        else:
            vars(self.job).pop(carrier.ATTRIBUTE, None)  # not taken: the next attempt to enqueue it is the first
            self._refuse(error)
        self.span.end()

    def _refuse(self, error: BaseException) -> None:
        if type(error).__name__ == "DuplicateJobError":  # what ``unique=True`` is for is no failure
            self.span.set_attribute("rq.enqueue.status", Safe("duplicate"))
        else:
            self.span.fail(error)


class Batch:
    """What one ``enqueue_many`` puts into pipelines: jobs are sent when theirs is executed, and RQ executes up to three."""

    def __init__(self, queue: Any, *, own: bool) -> None:
        self._queue = queue
        #: Whether RQ executes them; a pipeline of the user's is for the user to execute.
        self._own = own
        self._watched: Any = None
        self.taken: list[Taking] = []
        self.open = True

    @guarded
    def of(self, queue: Any, pipeline: Any) -> Batch | None:
        """This, if ``queue`` puts a job into ``pipeline`` for it: a job that is run meanwhile may enqueue, too."""
        if not self.open or queue is not self._queue or pipeline is None:
            return None
        if self._own and self._watched is None:
            self._watched, pipeline.execute = pipeline, functools.partial(self._execute, pipeline.execute)
        return self

    @guarded
    def close(self) -> None:
        """From here on nothing is put into its pipelines any more."""
        self.open = False
        if self._watched is not None:
            vars(self._watched).pop("execute", None)

    def _execute(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            found = original(*args, **kwargs)
        except BaseException as error:
            self.settle(error)
            raise
        self.settle(None)
        return found

    def settle(self, error: BaseException | None) -> None:
        taken, self.taken = self.taken, []
        for each in taken:
            each.settle(error)


class Producer:
    """Producer spans and what counts them."""

    def __init__(self, runtime: Runtime) -> None:
        self._tracer = runtime.tracer("chegou_otel.rq")
        self._measures = Measures(runtime)
        self._known: dict[tuple[str, str], tuple[Static, Any]] = {}

    @guarded
    def begin(self, queue: str, job: Any, joins: str) -> Taking:
        """Start the span and give the job its carrier."""
        ctx = get_current()
        known = ctx.get(_correlation.KEY)
        if not isinstance(known, Correlation):
            known = Correlation(new_id())
            ctx = Context({**ctx, _correlation.KEY: known})
        function = carrier.function_of(job)
        static, counted = self._known.get((queue, function)) or self._learn(queue, function)
        cron = ctx.get(CRON)
        span = self._tracer.begin(static, {"rq.cron.name": cron} if cron else None, context=ctx)
        carrier.attach(job, shape.carried(span, known, job, joins, str(cron or "")))
        return Taking(job, span, counted, attach(Context({**ctx, _SPAN_KEY: getattr(span, "inner", span), QUIET: True})))

    def _learn(self, queue: str, function: str) -> tuple[Static, Any]:
        static = Static(
            f"send {queue}", _PRODUCER, {**system(queue, function), "messaging.operation.type": "send", "messaging.operation.name": "send"}
        )
        found = static, self._measures.sent(queue, function)
        if len(self._known) < _MAX_CACHED:
            self._known[queue, function] = found
        return found


def system(queue: str, function: str) -> dict[str, Any]:
    """The constant attributes that producer and consumer share."""
    found = {"messaging.system": "rq", "messaging.destination.name": queue}
    return {**found, "rq.job.function": function} if function else found


def patch(runtime: Runtime, producer: Producer, module: ModuleType) -> None:
    """Every way into a queue.

    Raises:
        AttributeError: jobs carry nothing in this version of RQ, so a new job cannot be told from one that comes again.
    """
    if not carrier.is_patched(runtime):
        raise AttributeError("jobs cannot carry anything (see rq.job)")
    queue = module.Queue
    for name, joins in _WAYS_IN.items():
        if name not in _OPTIONAL or hasattr(queue, name):
            wrap_present(runtime, queue, name, functools.partial(_make, runtime, producer, joins))
    if hasattr(queue, "schedule_job"):
        runtime.wrap(queue, "schedule_job", functools.partial(_make_schedule, runtime))
    # It writes jobs in one pipeline of its own, after each was taken; those that wait for others it saves without taking them.
    wrap_present(runtime, queue, "enqueue_many", functools.partial(_make_many, runtime))
    wrap_present(runtime, queue, "create_job", functools.partial(_make_create, runtime, producer))
    wrap_present(runtime, queue, "run_sync", functools.partial(_make_run_sync, runtime))


def patch_group(runtime: Runtime, module: ModuleType) -> None:
    runtime.wrap(module.Group, "enqueue_many", functools.partial(make_quiet, runtime))


def _make(runtime: Runtime, producer: Producer, joins: str, original: Callable[..., Any]) -> Callable[..., Any]:
    again = make_quiet(runtime, original)
    public = original.__name__ == "enqueue_job"

    @guarded
    def comes_again(job: Any) -> None:
        if job.worker_name:  # otherwise nobody worked on it: it is being taken, or promoted
            shape.next_round(job, again=public)
        if joins == "parent":
            shape.queued(job)

    @functools.wraps(original)
    def take(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        held = vars(job)
        if _TAKING in held or not runtime.armed:  # one way in leads through another
            return original(self, job, *args, **kwargs)
        text = held.get(carrier.ATTRIBUTE)
        if text:
            comes_again(job)
            return again(self, job, *args, **kwargs)
        # RQ moves jobs that were enqueued before this package was: their story begins at the worker.
        taking = None if text is not None and not public else producer.begin(self.name, job, joins)
        if taking is None:
            return again(self, job, *args, **kwargs)
        held[_TAKING] = taking
        try:
            taken = original(self, job, *args, **kwargs)
        except BaseException as error:
            taking.end(error)
            raise
        batch = get_current().get(MANY)
        pipeline = kwargs.get("pipeline", args[0] if args else None)
        taking.end(None, batch.of(self, pipeline) if isinstance(batch, Batch) else None)
        return taken

    return take


def _make_schedule(runtime: Runtime, original: Callable[..., Any]) -> Callable[..., Any]:
    note = guarded(shape.scheduled)

    @functools.wraps(original)
    def schedule_job(self: Any, job: Any, datetime: Any, *args: Any, **kwargs: Any) -> Any:
        if runtime.armed:
            note(job, datetime)
        return original(self, job, datetime, *args, **kwargs)

    return schedule_job


def _make_run_sync(runtime: Runtime, original: Callable[..., Any]) -> Callable[..., Any]:
    """``Queue(is_async=False)``: the job was sent, and is run here and now."""
    quiet = make_quiet(runtime, original)

    @functools.wraps(original)
    def run_sync(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        taking = vars(job).pop(_TAKING, None)
        if taking is not None:
            taking.end(None)
        return quiet(self, job, *args, **kwargs)

    return run_sync


def _make_many(runtime: Runtime, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def enqueue_many(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not runtime.armed:
            return original(self, *args, **kwargs)
        batch = Batch(self, own=kwargs.get("pipeline", args[1] if len(args) > 1 else None) is None)
        token = attach(Context({**get_current(), QUIET: True, MANY: batch}))
        try:
            jobs = original(self, *args, **kwargs)
        except BaseException as error:
            batch.settle(error)
            raise
        finally:
            batch.close()
            reset(token)
        batch.settle(None)
        return jobs

    return enqueue_many


def _make_create(runtime: Runtime, producer: Producer, original: Callable[..., Any]) -> Callable[..., Any]:
    @guarded
    def defer(queue: Any, job: Any) -> None:
        job.id  # noqa: B018 - reading it makes it; the span is to have it
        taking = producer.begin(queue.name, job, "parent")
        batch = get_current().get(MANY)
        if taking is not None:  # it is saved in the pipeline
            taking.end(None, batch if isinstance(batch, Batch) and batch.open else None)

    @functools.wraps(original)
    def create_job(self: Any, *args: Any, **kwargs: Any) -> Any:
        job = original(self, *args, **kwargs)
        if runtime.armed and MANY in get_current() and str(getattr(job._status, "value", job._status)) == "deferred":
            defer(self, job)
        return job

    return create_job
