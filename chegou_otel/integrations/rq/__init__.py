"""RQ: one story from the enqueue to the last attempt, whatever becomes of the work-horse.

``carrier`` is what travels with a job, ``enqueue`` and ``schedulers`` make producer spans, ``executions`` consumer spans, one per
``execution``; ``shape`` says where they stand, ``workhorse`` hands over what a work-horse records and tells its end when it cannot,
``late`` serves a ``setup()`` that first runs inside a work-horse, ``logs`` keeps call arguments out of RQ's own log lines.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from chegou_otel import _guard
from chegou_otel.integrations.rq import carrier, connection, enqueue, executions, late, logs, quiet, reporter, schedulers, sync, workhorse
from chegou_otel.integrations.rq.abandoned import Abandoned
from chegou_otel.integrations.rq.listener import Listener
from chegou_otel.integrations.rq.never_ran import NeverRan

if TYPE_CHECKING:
    from types import ModuleType

    from chegou_otel._runtime import Runtime


def install(runtime: Runtime) -> None:
    runs = executions.Executions(runtime)
    listener = Listener(runtime, runs)  # in every process: a web worker may be the one that finds a dead worker's segment
    logs.install(runtime)
    runtime.when_imported("rq.job", _prepare)
    runtime.when_imported("rq.timeouts", _let_timeouts_through)
    runtime.when_imported("rq.exceptions", _let_stops_through)
    runtime.when_imported("rq.job", functools.partial(carrier.patch, runtime))
    runtime.when_imported("rq.job", functools.partial(runs.patch_job))
    runtime.when_imported("rq.worker.base", runs.patch_worker)
    never = NeverRan(runtime, runs.measures)
    runtime.when_imported("rq.job", never.patch_job)
    runtime.when_imported("rq.worker.base", never.patch_worker)
    runtime.when_imported("rq.registry", Abandoned(runtime, runs).patch)
    runtime.when_imported("rq.queue", functools.partial(runs.claims.patch, runtime))
    runtime.when_imported("rq.worker_pool", functools.partial(runs.claims.patch, runtime, name="WorkerPool"))
    runtime.when_imported("rq.queue", functools.partial(sync.patch, runtime, runs))
    runtime.when_imported("rq.worker.worker_classes", functools.partial(workhorse.patch, runtime, runs, listener))
    # After whatever else wraps a queue's methods: what was sent was sent before it runs.
    producer = enqueue.Producer(runtime)
    runtime.when_imported("rq.queue", functools.partial(enqueue.patch, runtime, producer))
    runtime.when_imported("rq.group", functools.partial(enqueue.patch_group, runtime))
    schedulers.install(runtime, producer, runs)
    reporter.install(runtime)
    late.install(runtime, runs)
    if runtime.role in ("worker", "scheduler") and late.job_under_way() is None:
        quiet.process(runtime)


def _prepare(_module: ModuleType) -> None:
    connection.prepare()


def _let_timeouts_through(module: ModuleType) -> None:
    """Raised by RQ's signal handlers in whatever frame runs, ours included; they are RQ's to catch."""
    _guard.let_through(module.BaseTimeoutException)


def _let_stops_through(module: ModuleType) -> None:
    _guard.let_through(module.StopRequested, module.ShutDownImminentException)
