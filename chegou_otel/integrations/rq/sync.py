"""A queue that does not wait for workers: ``Queue(is_async=False)`` runs the job where it is enqueued, without an ``Execution`` of RQ's."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from chegou_otel.integrations.rq.abandoned import Named
from chegou_otel.integrations.rq.outcomes import outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.executions import Executions


def patch(runtime: Runtime, executions: Executions, module: ModuleType) -> None:
    runtime.wrap(module.Queue, "run_sync", functools.partial(_make_run_sync, runtime, executions))
    runtime.wrap(module.Queue, "run_job", functools.partial(_make_run_job, runtime, executions))


def _make_run_sync(runtime: Runtime, executions: Executions, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_sync(queue: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        execution = executions.begin(Named("sync"), job, queue) if runtime.armed else None
        if execution is None:
            return original(queue, job, *args, **kwargs)
        try:
            ran = original(queue, job, *args, **kwargs)
        except BaseException as error:
            execution.failed_by(error)
            execution.end("failed")
            raise
        execution.end(outcome_of(ran, execution.error, done=execution.error is None))
        return ran

    return run_sync


def _make_run_job(runtime: Runtime, executions: Executions, original: Callable[..., Any]) -> Callable[..., Any]:
    """RQ keeps what the job raises to itself."""

    @functools.wraps(original)
    def run_job(queue: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(queue, job, *args, **kwargs)
        except BaseException as error:
            if runtime.armed and executions.current is not None:
                executions.current.failed_by(error)
            raise

    return run_job
