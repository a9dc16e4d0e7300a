"""Executions whose worker was never heard of again, as seen by whoever cleans the registry of started jobs.

On the host where it ran, the execution's own words lie in a segment, and whoever has or adopts that tells its end. Elsewhere nothing
is known of it but what Redis says: the cleaner claims the end and tells that.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chegou_otel._guard import guarded
from chegou_otel.delivery.search import mentions
from chegou_otel.integrations.rq.executions import nanoseconds
from chegou_otel.integrations.rq.never_ran import name_of
from chegou_otel.integrations.rq.outcomes import status_of
from chegou_otel.integrations.rq.quiet import make_quiet

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.executions import Executions

_FOUND: Final = "_chegou_otel_expired"
#: So many per cleaning; more would hold up the worker that cleans.
_MOST: Final = 100


class Named(NamedTuple):
    """Stands in for a queue, a worker or an execution of which no more is known."""

    name: str = ""
    id: str = ""


class Abandoned:
    def __init__(self, runtime: Runtime, executions: Executions) -> None:
        self._runtime = runtime
        self._executions = executions

    def patch(self, module: ModuleType) -> None:
        registry = module.StartedJobRegistry
        self._runtime.wrap(registry, "get_expired_job_ids", self._make_expired)
        self._runtime.wrap(registry, "cleanup", self._make_cleanup)

    def _make_expired(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def get_expired_job_ids(registry: Any, *args: Any, **kwargs: Any) -> Any:
            job_ids = original(registry, *args, **kwargs)
            if job_ids and self._runtime.armed and vars(registry).get(_FOUND) is not None:
                self._look(registry, *args, **kwargs)
            return job_ids

        return get_expired_job_ids

    def _make_cleanup(self, original: Callable[..., Any]) -> Callable[..., Any]:
        quiet = make_quiet(self._runtime, original)

        @functools.wraps(original)
        def cleanup(registry: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._runtime.armed:
                return original(registry, *args, **kwargs)
            found: list[tuple[Any, str]] = []
            setattr(registry, _FOUND, found)
            try:
                return quiet(registry, *args, **kwargs)
            finally:
                vars(registry).pop(_FOUND, None)
                for job, execution_id in found:
                    self.tell(job, execution_id)

        return cleanup

    @guarded
    def _look(self, registry: Any, timestamp: float | None = None) -> None:
        """Before RQ touches them: which executions expired, and their jobs as they were."""
        self._executions.claims.know(registry.connection)
        entries = registry.connection.zrangebyscore(registry.key, 0, "+inf" if timestamp is None else timestamp, 0, _MOST)
        for entry in entries:
            job_id, _, execution_id = (entry.decode() if isinstance(entry, bytes) else str(entry)).rpartition(":")
            if execution_id and job_id:
                job = _started(registry, job_id)
                if job is not None:
                    vars(registry)[_FOUND].append((job, execution_id))

    @guarded
    def tell(self, job: Any, execution_id: str) -> None:
        executions = self._executions
        if mentions(self._runtime.recorder.pool, f'["began","{execution_id}"'.encode()):
            return  # its own words are on this host: whoever has them tells
        if not executions.claims.take(execution_id, "abandoned", job.connection):
            return
        begun = executions.begin(Named(job.worker_name or ""), job, Named(job.origin), job.started_at, Named(id=execution_id))
        if begun is None:
            return
        begun.claimed = True
        begun.named(name_of(job))
        last = job.last_heartbeat or job.started_at
        begun.end("abandoned", {}, max(begun.start, nanoseconds(last)) if last else None)


def _started(registry: Any, job_id: str) -> Any:
    """The job, if RQ, too, takes it for one that is being run."""
    fetch: Callable[..., Any] = functools.partial(registry.job_class.fetch, connection=registry.connection, serializer=registry.serializer)
    try:
        job = fetch(job_id)
    except Exception as error:
        if type(error).__name__ == "NoSuchJobError":
            return None
        raise
    return job if status_of(job) == "started" else None
