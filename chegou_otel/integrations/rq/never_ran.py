"""Jobs that came to an end without a run: no execution, so no span, but an outcome that is counted and a log event that says so."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation as _correlation
from chegou_otel._guard import guarded
from chegou_otel.integrations.rq import carrier
from chegou_otel.integrations.rq.carrier import function_of
from chegou_otel.integrations.rq.quiet import make_quiet, quietly, wrap_present

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.metrics import Measures

EVENT: Final = "rq.job.not_run"
_WORDS: Final = {
    "canceled": (SeverityNumber.INFO, "the job was cancelled before it ran"),
    "lost": (SeverityNumber.ERROR, "the job was lost on its way from the queue to a worker"),
}
#: How RQ's own description of a call begins.
_CALL: Final = re.compile(r"([A-Za-z_][\w.]*)\(")


class NeverRan:
    """Counts and tells. The story of the job is its originator's."""

    def __init__(self, runtime: Runtime, measures: Measures) -> None:
        self._runtime = runtime
        self._measures = measures

    @guarded
    def tell(self, job: Any, outcome: str) -> None:
        queue, function = job.origin or "", name_of(job)
        self._measures.not_run(queue, function, outcome)
        severity, words = _WORDS[outcome]
        facts = {"messaging.system": "rq", "messaging.destination.name": queue, "messaging.message.id": job.id, "rq.job.status": outcome}
        get_logger("chegou_otel.rq", self._runtime.version).emit(
            context=_story(job), severity_number=severity, severity_text=severity.name, body=words, event_name=EVENT,
            attributes={**facts, "rq.job.function": function} if function else facts,
        )  # fmt: skip

    # -- where RQ is patched

    def patch_job(self, module: ModuleType) -> None:
        self._runtime.wrap(module.Job, "cancel", self._make_cancel)

    def patch_worker(self, module: ModuleType) -> None:
        self._runtime.wrap(module.BaseWorker, "handle_job_failure", self._make_failure)
        wrap_present(self._runtime, module.BaseWorker, "run_maintenance_tasks", functools.partial(make_quiet, self._runtime))

    def _make_cancel(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def cancel(job: Any, *args: Any, **kwargs: Any) -> Any:
            ran = not self._runtime.armed or self._ran(job) is not False
            result = original(job, *args, **kwargs)
            if not ran:
                self.tell(job, "canceled")
            return result

        return cancel

    @guarded
    def _ran(self, job: Any) -> bool:
        """Whether it ran before, or runs now: then its executions are told. What ``enqueue`` returned does not know, Redis does."""
        if job.worker_name or job.started_at:
            return True
        with quietly():
            return any(job.connection.hmget(job.key, "worker_name", "started_at"))

    def _make_failure(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def handle_job_failure(worker: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
            stuck = self._runtime.armed and "stuck in intermediate queue" in str(kwargs.get("exc_string", ""))
            again = stuck and bool(getattr(job, "should_retry", False))
            result = original(worker, job, *args, **kwargs)
            if stuck and not again:
                self.tell(job, "lost")
            return result

        return handle_job_failure


def name_of(job: Any) -> str:
    """The function of a job that is not unpickled to learn it: from RQ's description of the call, without its arguments."""
    known = function_of(job)
    if known:
        return known
    found = _CALL.match(getattr(job, "description", None) or "")
    return found[1] if found else ""


def _story(job: Any) -> Context:
    known = carrier.of(job)
    if known is None:
        return Context()
    found: dict[str, object] = {_correlation.KEY: known.correlation}
    if known.span_context is not None:
        found[_SPAN_KEY] = NonRecordingSpan(known.span_context)
    return Context(found)
