"""What enqueues beside RQ's queues: its cron, rq-scheduler, django-rq's waiting for the end of the request, `django.tasks`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation as _correlation
from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation, new_id, reset
from chegou_otel.integrations.redis import QUIET
from chegou_otel.integrations.rq import carrier
from chegou_otel.integrations.rq.enqueue import CRON
from chegou_otel.integrations.rq.quiet import make_quiet, wrap_present

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.enqueue import Producer
    from chegou_otel.integrations.rq.executions import Executions

#: Of rq-scheduler's: how a job comes to it, and its loop.
_SCHEDULING: Final = ("enqueue_at", "enqueue_in", "schedule", "cron", "enqueue_job", "run")


def install(runtime: Runtime, producer: Producer, executions: Executions) -> None:
    runtime.when_imported("rq.cron", functools.partial(_patch_cron, runtime))
    runtime.when_imported("rq_scheduler.scheduler", functools.partial(_patch_rq_scheduler, runtime, producer))
    runtime.when_imported("django_rq.queues", functools.partial(_patch_django_rq, runtime))
    runtime.when_imported("django_tasks_rq.backend", functools.partial(_patch_tasks, runtime, executions))


def _patch_cron(runtime: Runtime, module: ModuleType) -> None:
    """Each tick is a story of its own; the job's pipeline and the scheduler's heartbeats are RQ's."""
    wrap_present(runtime, module.CronScheduler, "start", functools.partial(make_quiet, runtime))
    runtime.wrap(module.CronJob, "enqueue", functools.partial(_make_tick, runtime))


def _make_tick(runtime: Runtime, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def enqueue(cron_job: Any, *args: Any, **kwargs: Any) -> Any:
        if not runtime.armed:
            return original(cron_job, *args, **kwargs)
        name = getattr(cron_job, "name", None) or getattr(cron_job, "func_name", "")
        base = {key: value for key, value in get_current().items() if key != _SPAN_KEY}
        token = attach(Context({**base, _correlation.KEY: Correlation(new_id()), CRON: name, QUIET: True}))
        try:
            return original(cron_job, *args, **kwargs)
        finally:
            reset(token)

    return enqueue


def _patch_rq_scheduler(runtime: Runtime, producer: Producer, module: ModuleType) -> None:
    """A job is taken when it is scheduled; ticks later, a queue takes it with the carrier that it has."""
    if not carrier.is_patched(runtime):
        raise AttributeError("jobs cannot carry anything (see rq.job)")
    runtime.wrap(module.Scheduler, "_create_job", functools.partial(_make_create, runtime, producer))
    for name in _SCHEDULING:
        wrap_present(runtime, module.Scheduler, name, functools.partial(make_quiet, runtime))


def _make_create(runtime: Runtime, producer: Producer, original: Callable[..., Any]) -> Callable[..., Any]:
    @guarded
    def took(job: Any) -> None:
        job.id  # noqa: B018 - reading it makes it; the span is to have it
        taking = producer.begin(job.origin, job, "link")
        if taking is not None:
            taking.end(None)

    @functools.wraps(original)
    def _create_job(scheduler: Any, *args: Any, commit: bool = True, **kwargs: Any) -> Any:
        if not runtime.armed:
            return original(scheduler, *args, commit=commit, **kwargs)
        job = original(scheduler, *args, commit=False, **kwargs)  # saved once it has its carrier
        took(job)
        if commit:
            job.save()
        return job

    return _create_job


def _patch_django_rq(runtime: Runtime, module: ModuleType) -> None:
    """Unless ``commit_mode`` is ``auto``, the job is enqueued when the block, view or request that asked for it is over."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def enqueue_call(queue: Any, *args: Any, **kwargs: Any) -> Any:
            later = runtime.armed and getattr(queue, "_commit_mode", "auto") != "auto"
            return original(_Later(queue, get_current()) if later else queue, *args, **kwargs)

        return enqueue_call

    runtime.wrap(module.DjangoRQ, "enqueue_call", make)


class _Later:
    """A queue that enqueues in the context in which it was asked to."""

    def __init__(self, queue: Any, context: Context) -> None:
        self._queue = queue
        self._context = context

    def original_enqueue_call(self, *args: Any, **kwargs: Any) -> Any:
        token = attach(self._context)
        try:
            return self._queue.original_enqueue_call(*args, **kwargs)
        finally:
            reset(token)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


def _patch_tasks(runtime: Runtime, executions: Executions, module: ModuleType) -> None:
    """The job class of django-tasks-rq runs the task by itself: what is wrapped in RQ's class is not called."""
    runtime.wrap(module.Job, "_execute", executions.make_execute)
