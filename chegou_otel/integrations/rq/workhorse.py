"""The work-horse hands over, and its parent tells what it could not.

The parent reserves a segment before the fork; the child writes there, opens no connection and starts no thread. When the child is gone
the parent drains the segment: measurements are added up here, spans and logs are shipped from here.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from chegou_otel._guard import guarded
from chegou_otel.integrations.rq import claims, resources, spawn
from chegou_otel.integrations.rq.outcomes import status_of
from chegou_otel.integrations.rq.quiet import make_loud
from chegou_otel.integrations.rq.teller import Teller

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.execution import Execution, Executions
    from chegou_otel.integrations.rq.listener import Listener

_DRAIN_SECONDS: Final = 1.0
#: What messages are often made with, and jobs return.
_PLAIN: Final[tuple[object, ...]] = (None, False, 0, 0.0, "", b"", (), [])


def patch(runtime: Runtime, executions: Executions, listener: Listener, module: ModuleType) -> None:
    horses = Horses(runtime, executions, listener)
    if spawn.is_spawned():
        horses.hand_over(spawn.segment_path())
    runtime.wrap(module.Worker, "fork_work_horse", horses.make_fork)
    runtime.wrap(module.SpawnWorker, "fork_work_horse", horses.make_spawn)
    runtime.wrap(module.Worker, "wait_for_horse", horses.make_wait)
    runtime.wrap(module.Worker, "monitor_work_horse", horses.make_monitor)
    runtime.wrap(module.Worker, "main_work_horse", horses.make_main)
    if "execute_stopped_callback" in vars(module):
        runtime.wrap(module, "execute_stopped_callback", functools.partial(make_loud, runtime))


def _ask_ahead() -> None:
    """Ask here what logging asks of a message's only argument, and RQ of what a job returns: the answers are kept per type.

    Each work-horse would find them out anew, and an abstract class asks all of its subclasses: a page for each to be copied. Every time,
    because whatever registers with any abstract class makes them all forget.
    """
    from asyncio import iscoroutine  # RQ has imported it; an application without RQ need not

    any(isinstance(value, Mapping) or iscoroutine(value) for value in _PLAIN)


class Horses:
    """One per worker process: one work-horse at a time."""

    def __init__(self, runtime: Runtime, executions: Executions, listener: Listener) -> None:
        self.runtime = runtime
        self.executions = executions
        self.listener = listener
        self.segment: Any = None
        self.exit: tuple[Any, Any] = (None, None)

    # -- in the parent, before

    @guarded
    def reserve(self, worker: Any) -> None:
        recorder, switch = self.runtime.recorder, self.runtime.switch
        if switch is not None:
            switch.look()  # the work-horse will not
        for stale in recorder.pool.out:  # an alarm struck before it was drained; a worker has one work-horse at a time
            recorder.drain(stale, 0.0)
        self.segment = recorder.reserve()
        _ask_ahead()
        self.listener.monitored = getattr(getattr(worker, "execution", None), "id", None)
        self.exit = (None, None)

    def make_fork(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def fork_work_horse(worker: Any, *args: Any, **kwargs: Any) -> Any:
            if self.runtime.armed:
                self.reserve(worker)
                self.executions.prepare(worker, *args[:2])
            try:
                return original(worker, *args, **kwargs)
            finally:
                self.executions.prepared = None

        return fork_work_horse

    def make_spawn(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def fork_work_horse(worker: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.runtime.armed:
                return original(worker, *args, **kwargs)
            self.reserve(worker)
            with spawn.bootstrapped(getattr(self.segment, "path", None)):
                return original(worker, *args, **kwargs)

        return fork_work_horse

    # -- in the child

    def make_main(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def main_work_horse(worker: Any, *args: Any, **kwargs: Any) -> Any:
            if self.runtime.armed and not spawn.is_spawned():
                self.hand_over(self.segment)
            return original(worker, *args, **kwargs)

        return main_work_horse

    @guarded
    def hand_over(self, segment: Any) -> None:
        """This process is a work-horse: whatever it records goes to ``segment``, measurements cross to the parent."""
        runtime = self.runtime
        runtime.recorder.become(segment)
        runtime.metrics.cross_to_parent()
        runtime.bridge.teach = runtime.metrics.tell_parent
        if runtime.meter_provider is not None:
            runtime.meter_provider.cross_to_parent()
        self.executions.teller = Teller(runtime, parent=os.getppid())
        self.executions.forked = not spawn.is_spawned()

    # -- in the parent, after

    def make_wait(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wait_for_horse(worker: Any) -> Any:
            found = original(worker)
            if isinstance(found, tuple) and len(found) == 3 and found[0] is not None:  # noqa: PLR2004 - pid, status, rusage
                self.exit = (found[1], found[2])
            return found

        return wait_for_horse

    def make_monitor(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def monitor_work_horse(worker: Any, job: Any, queue: Any, *args: Any, **kwargs: Any) -> Any:
            stopped_before = self.runtime.armed and worker._stopped_job_id == job.id
            execution = getattr(worker, "execution", None)
            try:
                return original(worker, job, queue, *args, **kwargs)
            finally:
                if self.runtime.armed:
                    self.after(worker, job, queue, execution, stopped=stopped_before)

        return monitor_work_horse

    @guarded
    def after(self, worker: Any, job: Any, queue: Any, execution: Any, *, stopped: bool) -> None:
        """The work-horse is gone: drain its segment, and tell its span if it could not."""
        segment, self.segment = self.segment, None
        if segment is not None:
            self.runtime.recorder.drain(segment, _DRAIN_SECONDS)
        execution_id = getattr(execution, "id", None) or self.listener.monitored
        known = self.listener.settle(execution_id) if execution_id else None
        if known is None:
            return
        status, usage = self.exit
        began = known.get("used") if known else None
        stopped = stopped or status_of(job) == "stopped"
        outcome, more = _ending(status, usage, began, stopped=stopped)
        if known:
            self.listener.tell(known, outcome, more, where=job.connection)
        elif self.executions.claims.take(execution_id or "", outcome, job.connection):
            self._tell_unknown(worker, job, queue, execution, outcome, more)

    def _tell_unknown(self, worker: Any, job: Any, queue: Any, execution: Any, outcome: str, more: dict[str, Any]) -> None:
        """It died before its first frame: the parent has the job in hand and begins the span itself."""
        begun: Execution | None = self.executions.begin(worker, job, queue, execution=execution)
        if begun is not None:
            begun.end(outcome, more)


def _ending(status: int | None, usage: Any, began: Any, *, stopped: bool) -> tuple[str, dict[str, Any]]:
    """How a work-horse that told nothing ended, and what the kernel knows of it."""
    used = {} if usage is None else resources.of_dead(usage, began)
    outcome, facts = ("vanished", {}) if status is None else claims.of_status(status)
    return ("stopped" if stopped else outcome), {**used, **facts}
