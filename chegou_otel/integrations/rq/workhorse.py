"""The work-horse hands over, and its parent tells what it could not.

The parent reserves a segment before the fork; the child writes there, opens no connection and starts no thread. When the child is gone
the parent drains the segment: measurements are added up here, spans and logs are shipped from here.
"""

from __future__ import annotations

import functools
import os
from abc import get_cache_token
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _forks
from chegou_otel._guard import guarded
from chegou_otel.correlation import rng
from chegou_otel.delivery.inheritance import inherit, speak_for
from chegou_otel.integrations.rq import claims, resources, spawn
from chegou_otel.integrations.rq.executions import execution_of
from chegou_otel.integrations.rq.listener import said
from chegou_otel.integrations.rq.outcomes import status_of
from chegou_otel.integrations.rq.quiet import make_loud
from chegou_otel.integrations.rq.teller import Teller

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.execution import Execution
    from chegou_otel.integrations.rq.executions import Executions
    from chegou_otel.integrations.rq.listener import Listener

_DRAIN_SECONDS: Final = 1.0
#: What messages are often made with, and jobs return.
_PLAIN: Final[tuple[object, ...]] = (None, False, 0, 0.0, "", b"", (), [])


def patch(runtime: Runtime, executions: Executions, listener: Listener, module: ModuleType) -> None:
    horses = Horses(runtime, executions, listener, module)
    if (parent := spawn.inherited()) is not None:
        speak_for(runtime.recorder, parent.service, parent.resource)
        if runtime.switch is not None:
            runtime.switch.serve(parent.service)
        if runtime.recording:
            horses.become(parent.segment)
    runtime.wrap(module.Worker, "work", horses.make_work)
    runtime.wrap(module.Worker, "fork_work_horse", horses.make_fork)
    runtime.wrap(module.SpawnWorker, "fork_work_horse", horses.make_spawn)
    runtime.wrap(module.Worker, "wait_for_horse", horses.make_wait)
    runtime.wrap(module.Worker, "monitor_work_horse", horses.make_monitor)
    runtime.wrap(module.Worker, "main_work_horse", horses.make_main)
    if "execute_stopped_callback" in vars(module):
        runtime.wrap(module, "execute_stopped_callback", functools.partial(make_loud, runtime))


class _Asked:
    """What logging asks of a message's only argument, and RQ of what a job returns: asked here, the answers are kept per type.

    Each work-horse would find them out anew, and an abstract class asks all of its subclasses: a page for each to be copied. Again
    whenever somebody registered with any abstract class, which makes them all forget.
    """

    def __init__(self) -> None:
        self._as_of: object = None

    def ahead(self) -> None:
        as_of = get_cache_token()
        if self._as_of != as_of:
            from asyncio import iscoroutine  # RQ has imported it; an application without RQ need not

            any(isinstance(value, Mapping) or iscoroutine(value) for value in _PLAIN)
            self._as_of = as_of


class Horses:
    """One per worker process: one work-horse at a time."""

    def __init__(self, runtime: Runtime, executions: Executions, listener: Listener, module: ModuleType) -> None:
        self.runtime = runtime
        self._rq_s = (module.Worker, module.SpawnWorker)
        #: Subclasses that fork in a way of their own.
        self._met: set[type] = set()
        self.executions = executions
        self.listener = listener
        self.segment: Any = None
        self._asked = _Asked()
        #: What was made for the work-horse under way.
        self.made: Execution | None = None
        self.exit: tuple[Any, Any] = (None, None)
        #: The generation of a work-horse that a subclass forks in a way of its own: it is renewed as any child, until its first step.
        self._strange = -1
        runtime.bridge.teach = runtime.metrics.teach
        #: For work-horses that are forked, and the generation of the one that this process is.
        self._teller: Teller | None = None
        self._generation = -1
        #: Whether we note what we add up; then what measures sees by itself that it is in a work-horse.
        self._notes = False
        #: Whether telemetry was off when the work-horse under way was forked.
        self._off = False

    @property
    def _at_work(self) -> bool:
        """Whether there is anything to hand over."""
        return self.runtime.armed and self.runtime.recording

    # -- in the parent, before

    @guarded
    def reserve(self, worker: Any, job: Any) -> None:
        recorder, switch = self.runtime.recorder, self.runtime.switch
        if switch is not None:
            switch.look()  # the work-horse will not
        for stale in recorder.pool.out:  # an alarm struck before it was drained; a worker has one work-horse at a time
            recorder.drain(stale, 0.0)
        self.segment = recorder.reserve()
        self._notes, self._off = self.runtime.journal.kept, recorder.muted
        self._asked.ahead()
        self.listener.watch(getattr(execution_of(worker, job), "id", None))
        self.exit = (None, None)

    def make_fork(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def fork_work_horse(worker: Any, job: Any, queue: Any, *args: Any, **kwargs: Any) -> Any:
            if self._at_work:
                self._strange = -1
                self.reserve(worker, job)
                self.executions.prepare(worker, job, queue)
                self.made = self.executions.prepared
                if self.made is not None and not self._comes_by(type(worker)):
                    self.made.made = None  # nothing is left to who does not come for it
                if self._teller is None or self._teller.parent != os.getpid():
                    self._teller = Teller(self.runtime, parent=os.getpid(), to_be_forked=True)
                _forks.expect(self.inherit)
            try:
                return original(worker, job, queue, *args, **kwargs)
            finally:
                _forks.expect(None)
                self.executions.prepared = None

        return fork_work_horse

    def _comes_by(self, kind: type) -> bool:
        """Whether ``after`` is called for sure: a subclass may watch its work-horses in a way of its own."""
        return all(getattr(kind, name) is getattr(self._rq_s[0], name) for name in ("execute_job", "monitor_work_horse"))

    def make_spawn(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def fork_work_horse(worker: Any, job: Any, queue: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.runtime.armed:
                return original(worker, job, queue, *args, **kwargs)
            if self._at_work:
                self.reserve(worker, job)
            left = spawn.left(self.runtime, self.segment)
            with spawn.bootstrapped(left) if left else nullcontext():
                return original(worker, job, queue, *args, **kwargs)

        return fork_work_horse

    def make_work(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def work(worker: Any, *args: Any, **kwargs: Any) -> Any:
            if self._at_work:
                self.meet(type(worker))
            return original(worker, *args, **kwargs)

        return work

    @guarded
    def meet(self, kind: type) -> None:
        """A subclass may fork in a way of its own: what it forks is given a segment all the same."""
        owner = next(base for base in kind.__mro__ if "fork_work_horse" in vars(base))
        if kind in self._met or owner in self._rq_s:
            return
        if owner not in self._met:
            self.runtime.wrap(owner, "fork_work_horse", self.make_strange)
        self._met |= {kind, owner}
        self.runtime.wrap(kind, "perform_job", self.make_perform)

    def make_strange(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def fork_work_horse(worker: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
            if self._at_work:
                self.reserve(worker, job)
                self._strange = _forks.generation + 1
            return original(worker, job, *args, **kwargs)

        return fork_work_horse

    # -- in the child

    def make_perform(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The first step of a work-horse that does not come by ``main_work_horse``."""

        @functools.wraps(original)
        def perform_job(worker: Any, *args: Any, **kwargs: Any) -> Any:
            if self._at_work and self._strange == _forks.generation != self._generation:
                self.become(self.segment)
            return original(worker, *args, **kwargs)

        return perform_job

    def make_main(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def main_work_horse(worker: Any, *args: Any, **kwargs: Any) -> Any:
            if self._at_work and self._generation != _forks.generation and spawn.inherited() is None:
                self.become(self.segment)
            return original(worker, *args, **kwargs)

        return main_work_horse

    def inherit(self) -> None:
        """Right after the fork, in place of all that is renewed in other children: each page that is touched is copied."""
        rng.renew()
        inherit(self.runtime.recorder, self.segment)
        if self._notes:
            self._generation, self.executions.teller = _forks.generation, self._teller
        else:
            self._hand_over(self._teller)

    @guarded
    def become(self, segment: Any) -> None:
        """The same for a child that was renewed as any other: it was spawned, or forked by something that we do not know."""
        self.runtime.recorder.become(segment)
        self._hand_over(Teller(self.runtime, parent=os.getppid()))

    def _hand_over(self, teller: Teller | None) -> None:
        """This process is a work-horse: measurements cross to the parent, which hears of each execution as it goes on."""
        runtime, self._generation = self.runtime, _forks.generation
        runtime.metrics.cross_to_parent()
        if runtime.meter_provider is not None:
            runtime.meter_provider.cross_to_parent()
        self.executions.teller = teller

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
            before = self.seen(worker, job, args[0] if args else kwargs.get("execution")) if self._at_work else None
            try:
                return original(worker, job, queue, *args, **kwargs)
            finally:
                if self._at_work:
                    self.after(worker, job, queue, *(before or (None, False)))

        return monitor_work_horse

    @guarded
    def seen(self, worker: Any, job: Any, given: Any) -> tuple[Any, bool]:
        """What RQ may have forgotten when the work-horse is gone: which execution it was at, and whether it was to be stopped."""
        return execution_of(worker, job, given), worker._stopped_job_id == job.id

    @guarded
    def after(self, worker: Any, job: Any, queue: Any, execution: Any, stopped: bool) -> None:
        """The work-horse is gone: drain its segment, and tell its span if it could not."""
        segment, made, self.segment, self.made = self.segment, self.made, None, None
        if segment is not None and not self.runtime.recorder.drain(segment, _DRAIN_SECONDS):
            self.listener.watch(None)  # the courier is at it, and has not seen the end yet: it tells then
            return
        execution_id = getattr(execution, "id", None) or self.listener.monitored
        known = self.listener.settle(execution_id) if execution_id else None
        if known is None or (self._off and not known):
            return
        if "ended" in known:
            if not said(known) and (made is None or made.id != known["id"]):  # what it was is not known but here
                made = self.executions.make(worker, job, queue, job.started_at, execution)
            self._tell_left(made, known)
            return
        status, usage = self.exit
        began = known.get("used") if known else None
        stopped = stopped or status_of(job) == "stopped" or worker._stopped_job_id == job.id
        outcome, more = _ending(status, usage, began, stopped=stopped)
        if outcome == "vanished" and status == 0 and (stored := self.executions.claims.stored(job, execution_id or "")):
            outcome, more = stored, resources.of_dead(usage, began)
        if known:
            self.listener.tell(known, outcome, more, where=job.connection)
        elif self.executions.claims.take(execution_id or "", outcome, job.connection):
            # It died before its first frame; what was made for it is here, unless it was spawned.
            if made is None or made.id != execution_id:
                made = self.executions.begin(worker, job, queue, job.started_at, execution)
            if made is not None:
                made.end(outcome, more)

    def _tell_left(self, made: Execution | None, known: dict[str, Any]) -> None:
        changed = known["ended"][4:]
        if said(known) and (changed or made is None or made.id != known["id"]):
            self.listener.tell_left(known)
            return
        if self.runtime.recorder.muted:
            self.listener.keep(known)
            return
        try:
            if made is not None:
                self.executions.tell_left(made, *known["ended"][:4])
        finally:
            known["hold"].release()


def _ending(status: int | None, usage: Any, began: Any, *, stopped: bool) -> tuple[str, dict[str, Any]]:
    """How a work-horse that told nothing ended, and what the kernel knows of it."""
    used = {} if usage is None else resources.of_dead(usage, began)
    outcome, facts = ("vanished", {}) if status is None else claims.of_status(status)
    return ("stopped" if stopped else outcome), {**used, **facts}
