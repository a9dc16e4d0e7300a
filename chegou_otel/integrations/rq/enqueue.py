"""Producer spans: one when a queue first takes a job, by whichever way in.

The base class is patched: the scheduler and the registries build plain queues. What passes here again (a retry, a dependent, the
scheduler's promotion) has its carrier already and makes no span.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation as _correlation
from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation, new_id, reset
from chegou_otel.integrations.redis import QUIET
from chegou_otel.integrations.rq import carrier
from chegou_otel.integrations.rq.quiet import make_quiet
from chegou_otel.signals.encoding import Static

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import ModuleType

    from chegou_otel._runtime import Runtime

_PRODUCER: Final = 3
_MAX_CACHED: Final = 2_000
#: How a job enters a queue for the first time, and what its run will be to the span that enqueued it.
_WAYS_IN: Final = {"enqueue_job": "parent", "_enqueue_job": "parent", "schedule_job": "link"}


class Taking:
    """A job being taken by a queue."""

    __slots__ = ("job", "span", "token")

    def __init__(self, job: Any, span: Any, token: Token[Context]) -> None:
        self.job = job
        self.span = span
        self.token = token

    @guarded
    def end(self, error: BaseException | None) -> None:
        reset(self.token)
        # Reading ``job.id`` makes one, and RQ tells by its absence that the user chose none; by now RQ has read it.
        if self.job._id:
            self.span.set_attribute("messaging.message.id", self.job._id)
        if error is not None:
            self.span.fail(error)
            vars(self.job).pop(carrier.ATTRIBUTE, None)  # not taken: the next attempt to enqueue it is the first
        self.span.end()


class Producer:
    """Producer spans and what counts them."""

    def __init__(self, runtime: Runtime) -> None:
        self._tracer = runtime.tracer("chegou_otel.rq")
        self._sent = runtime.metrics.counter("messaging.client.sent.messages", "{message}", "Jobs enqueued.")
        self._statics: dict[tuple[str, str], Static] = {}

    @guarded
    def begin(self, queue: Any, job: Any, shape: str) -> Taking | None:
        """Start the span and give the job its carrier; ``None`` when it has one."""
        if getattr(job, carrier.ATTRIBUTE, None) is not None:
            return None
        ctx = get_current()
        known = ctx.get(_correlation.KEY)
        if not isinstance(known, Correlation):
            known = Correlation(new_id())
            ctx = Context({**ctx, _correlation.KEY: known})
        function = function_of(job)
        static = self._statics.get((queue.name, function)) or self._static(queue.name, function)
        span = self._tracer.begin(static, None, context=ctx)
        carrier.attach(job, carried(span, known, job, shape))
        self._sent.series((("messaging.system", "rq"), ("messaging.destination.name", queue.name))).add(1)
        return Taking(job, span, attach(Context({**ctx, _SPAN_KEY: getattr(span, "inner", span), QUIET: True})))

    def _static(self, queue: str, function: str) -> Static:
        static = Static(
            f"send {queue}", _PRODUCER, {**system(queue, function), "messaging.operation.type": "send", "messaging.operation.name": "send"}
        )
        if len(self._statics) < _MAX_CACHED:
            self._statics[queue, function] = static
        return static


def carried(span: Any, known: Correlation, job: Any, shape: str) -> carrier.Carrier:
    """The carrier for a job that ``span`` enqueues."""
    context = span.get_span_context()
    valid = context.is_valid
    return carrier.Carrier(
        f"{context.trace_id:032x}" if valid else "", f"{context.span_id:016x}" if valid else "", int(context.trace_flags),
        known.id, int(job.retries_left or 0), shape,
    )  # fmt: skip


def system(queue: str, function: str) -> dict[str, Any]:
    """The constant attributes that producer and consumer share."""
    found = {"messaging.system": "rq", "messaging.destination.name": queue}
    return {**found, "rq.job.function": function} if function else found


def function_of(job: Any) -> str:
    """The function's dotted name where it is known already; nothing is unpickled to learn it."""
    name = getattr(job, "_func_name", None)
    return name if isinstance(name, str) else ""


def patch(runtime: Runtime, module: ModuleType) -> None:
    producer = Producer(runtime)
    for name, shape in _WAYS_IN.items():
        runtime.wrap(module.Queue, name, functools.partial(_make, runtime, producer, shape))
    # It writes jobs in one pipeline of its own, after each was taken.
    runtime.wrap(module.Queue, "enqueue_many", functools.partial(make_quiet, runtime))


def _make(runtime: Runtime, producer: Producer, shape: str, original: Callable[..., Any]) -> Callable[..., Any]:
    again = make_quiet(runtime, original)

    @functools.wraps(original)
    def take(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        taking = producer.begin(self, job, shape) if runtime.armed else None
        if taking is None:
            return again(self, job, *args, **kwargs)
        try:
            taken = original(self, job, *args, **kwargs)
        except BaseException as error:
            taking.end(error)
            raise
        taking.end(None)
        return taken

    return take
