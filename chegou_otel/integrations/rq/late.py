"""When ``setup()`` first runs inside a work-horse.

``rq worker`` imports neither Django's settings nor the jobs in its parent, so a ``setup()`` in ``settings.py`` runs in each work-horse,
while the job's module is being imported. The execution is under way by then: its span is begun here, with the start that RQ noted,
ended when RQ stores the outcome, and handed over within a quarter of a second before RQ's ``os._exit``.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from chegou_otel import _guard
from chegou_otel._guard import guarded
from chegou_otel.integrations.rq import carrier, resources
from chegou_otel.integrations.rq.abandoned import Named
from chegou_otel.integrations.rq.outcomes import outcome_of
from chegou_otel.integrations.rq.teller import Teller

if TYPE_CHECKING:
    from collections.abc import Callable

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.execution import Execution
    from chegou_otel.integrations.rq.executions import Executions

HAND_OVER_SECONDS = 0.25
_ENDS = ("main_work_horse", "fork_work_horse")
_ADVICE = (
    "chegou_otel.setup() runs inside each RQ work-horse, because `rq worker` does not import your settings; every job pays for it. "
    "Better: `chegou-otel run -- rq worker`, `rq worker -c <settings module>`, or `manage.py rqworker`"
)


def install(runtime: Runtime, executions: Executions) -> None:
    job = job_under_way()
    if job is None or not runtime.recording:
        return
    runtime.keep_measurements()
    execution = begin(executions, job)
    if execution is None:
        return
    _advise(job)
    runtime.wrap(os, "_exit", functools.partial(_make_exit, runtime, execution, job))


def job_under_way() -> Any:
    """The job that this process, a work-horse, is performing; ``None`` anywhere else."""
    rq_job = sys.modules.get("rq.job")
    if rq_job is None or "RQ_WORKER_ID" not in os.environ:
        return None
    current: Callable[[], Any] | None = getattr(rq_job, "get_current_job", None)
    return current() if current is not None else None


@guarded
def begin(executions: Executions, job: Any) -> Execution | None:
    """Begin the execution that is under way. Its carrier is asked of Redis: the job was loaded before we could read it."""
    carrier.fetch(job)
    executions.teller = Teller(executions.runtime, parent=os.getppid())
    execution = executions.begin(_worker(job), job, Named(job.origin), job.started_at)
    if execution is not None and job.started_at is not None:
        execution.named(job.func_name)
    return execution


def _worker(job: Any) -> Any:
    """The worker whose work-horse this is: the innermost frame of ``main_work_horse`` knows it."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "main_work_horse" and "self" in frame.f_locals:
            return frame.f_locals["self"]
        frame = frame.f_back
    return Named(job.worker_name or "")


def _advise(job: Any) -> None:
    """Say once per worker, not per job, that there is a better start."""

    @guarded
    def say() -> None:
        if job.connection.set(f"chegou_otel:advised:{os.environ['RQ_WORKER_ID']}", "1", nx=True, ex=86_400):
            _guard.logger.warning("%s", _ADVICE)

    say()


def _is_rq(frame: Any) -> bool:
    """Whether it is RQ that ends the work-horse."""
    return frame.f_code.co_name in _ENDS and str(frame.f_globals.get("__name__", "")).startswith("rq.")


def _make_exit(runtime: Runtime, execution: Execution, job: Any, original: Callable[[int], Any]) -> Callable[[int], Any]:
    pid = os.getpid()

    @guarded
    def finish(status: int, *, ordered: bool) -> None:
        if os.getpid() != pid:
            return  # a child of the work-horse
        if not execution.over and ordered:
            execution.end(outcome_of(job, execution.error, done=status == 0))
        elif not execution.over:  # somebody left in the midst of the job
            execution.end("vanished", {**resources.spent(execution.used), "rq.job.exit_code": status})
        runtime.recorder.flush(HAND_OVER_SECONDS)

    @functools.wraps(original)
    def _exit(status: int = 0) -> Any:
        if runtime.armed:
            finish(status, ordered=_is_rq(sys._getframe(1)))
        return original(status)

    return _exit
