"""The gauges of RQ, from one process per deployment, on a thread of its own.

Every worker, cron scheduler and web process is a candidate; Redis says who it is (see ``election``). The thread imports nothing, talks
to Redis over a connection of its own that has a deadline, and does not come along into forked children: a work-horse never reports, a
web worker starts its own. What it tells belongs to the deployment, not to the process: its resource is the same whoever reports.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context

from chegou_otel import _forks, _guard
from chegou_otel._context import attach
from chegou_otel.delivery.frames import Signal
from chegou_otel.delivery.otlp import Scope, resource_block
from chegou_otel.integrations.redis import QUIET
from chegou_otel.integrations.rq import connection
from chegou_otel.integrations.rq.election import Lease, Rank
from chegou_otel.integrations.rq.reading import GAUGES, Reader, Value
from chegou_otel.signals.metrics import Registry
from chegou_otel.signals.resource import create_resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from chegou_otel._runtime import Runtime

#: A worker that only empties its queue is gone before its first round.
_START_DELAY: Final = 1.0
#: How long the exit waits for the lease to be given back; without that, it expires.
_STOP_SECONDS: Final = 0.25
#: How long a leader that died is missed at most; everybody looks so many times in it.
LEASE_SECONDS = 15.0
_ROUNDS: Final = 3
_SCOPE_NAME: Final = "chegou_otel.rq.reporter"
#: What is the same in all processes of a deployment.
_SHARED: Final = (
    "service.name", "service.namespace", "deployment.environment.name", "deployment.environment", "telemetry.sdk.language",
    "telemetry.sdk.name", "telemetry.distro.name",
)  # fmt: skip


class Reporter:
    """One per process, for every Redis that it knows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        #: By address: a client of the application's, and our rank there.
        self._known: dict[str, tuple[Any, Rank]] = {}
        self._generation = -1
        self._be_here()

    def _be_here(self) -> None:
        """At the start, and in a forked child: no thread, no connection, no lease."""
        if self._generation == _forks.generation:
            return
        self._generation = _forks.generation
        self._posts: dict[str, Post] = {}
        self._stopping = False
        self._bell = _thread.allocate_lock()
        self._bell.acquire()
        self._running = _thread.allocate_lock()

    @property
    def wanted(self) -> bool:
        runtime = self._runtime
        sends = Signal.METRICS in runtime.recorder.endpoints and runtime.metrics.append == runtime.recorder.append
        return runtime.armed and sends and runtime.settings.rq_reporter

    @_guard.guarded
    def see(self, client: Any, rank: Rank) -> None:
        """This process works with ``client``'s database: be a candidate there."""
        if not self.wanted:
            return
        self._be_here()
        address = connection.address(client)
        before = self._known.get(address)
        if before is None or rank < before[1]:
            self._known[address] = (client, rank)
            self._posts.pop(address, None)
        self._begin()

    @_guard.guarded
    def look_around(self) -> None:
        """In a web process, now and then: what do the settings name? After a fork this is where the child begins."""
        if not self.wanted:
            return
        self._be_here()
        for client in connection.of_settings():
            self._known.setdefault(connection.address(client), (client, Rank.WEB))
        if self._known:
            self._begin()

    def _begin(self) -> None:
        if not self._running.locked():
            with contextlib.suppress(RuntimeError):  # too late in the life of the interpreter
                _thread.start_new_thread(self._main, ())

    def stop(self) -> None:
        self._be_here()
        self._stopping = True
        with contextlib.suppress(RuntimeError):
            self._bell.release()
        if self._running.acquire(timeout=_STOP_SECONDS):
            self._running.release()

    # -- the thread

    def _main(self) -> None:
        running = self._running
        if not running.acquire(blocking=False):
            return
        try:
            attach(Context({_SUPPRESS_INSTRUMENTATION_KEY: True, QUIET: True}))
            self._bell.acquire(timeout=_START_DELAY)
            while not self._stopping:
                for post in () if self._runtime.recorder.muted else self._all_posts():
                    post.round()
                self._bell.acquire(timeout=LEASE_SECONDS / _ROUNDS)
            for post in self._posts.values():
                post.leave()
        finally:
            running.release()

    def _all_posts(self) -> list[Post]:
        for address, (client, rank) in list(self._known.items()):
            if address not in self._posts:
                self._posts[address] = Post(self._runtime, client, rank)
        return list(self._posts.values())


class Post:
    """The candidacy at one Redis, and the reports when it is won."""

    def __init__(self, runtime: Runtime, client: Any, rank: Rank) -> None:
        self._runtime = runtime
        self._own = connection.like(client)
        self._lease = Lease(lambda: self._own, connection.prefix(), rank, LEASE_SECONDS)
        self._reader = Reader(self._own, connection.prefix())
        self._address = connection.address(client)
        self._scope: Scope | None = None
        self._due = 0.0
        #: Whether to say that Redis does not answer: who leads does, and who never reached it. Once.
        self._says = True

    def round(self) -> None:
        """Be the leader or not; report when it is time."""
        try:
            leads = self._lease.take()
            if leads and time.monotonic() >= self._due:
                self._due = time.monotonic() + self._runtime.recorder.collect_interval
                self.report()
            self._says = leads
        except Exception as error:
            self._failed(error)

    def report(self) -> list[Value]:
        """Read and record, whoever leads.

        Raises:
            redis.RedisError: Redis did not answer in time, or refused.
        """
        found = self._reader.read()
        if self._scope is None:
            self._scope = scope_of(self._runtime, self._address)
        record(self._runtime, self._scope, found)
        return found

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("redis."):
            _guard.report("chegou_otel.integrations.rq.reporter", error)
        elif self._says:
            self._says = False
            _guard.logger.warning("RQ's queues are not measured: Redis at %s does not answer (%s)", self._address, type(error).__name__)

    def leave(self) -> None:
        with contextlib.suppress(Exception):
            self._lease.give_back()
            self._own.close()


def scope_of(runtime: Runtime, address: str) -> Scope:
    """Speaks for the deployment: the same resource, whichever process reports."""
    attributes = create_resource(runtime.settings, "reporter", runtime.version).attributes
    shared = {key: attributes[key] for key in _SHARED if key in attributes}
    resource = {**shared, "service.instance.id": f"rq-reporter@{address}", "chegou.role": "reporter"}
    return Scope.of(_SCOPE_NAME, runtime.version, resource=resource_block(resource))


def record(runtime: Runtime, scope: Scope, values: Iterable[Value]) -> None:
    """Append the gauges as frames. A queue that is gone is not told again: each report begins with nothing."""
    registry = Registry(runtime.recorder.append)
    registry.scope = scope
    for value in values:
        unit, description = GAUGES[value.gauge]
        registry.gauge(value.gauge, unit, description).series(value.labels).record(value.value)
    registry.collect()


def install(runtime: Runtime) -> Reporter:
    reporter = Reporter(runtime)
    runtime.when_imported("rq.worker.base", functools.partial(_patch, runtime, reporter, "BaseWorker", "work", Rank.WORKER))
    runtime.when_imported("rq.cron", functools.partial(_patch, runtime, reporter, "CronScheduler", "start", Rank.SCHEDULER))
    runtime.when_imported("rq_scheduler.scheduler", functools.partial(_patch, runtime, reporter, "Scheduler", "run", Rank.SCHEDULER))
    if runtime.role == "web":
        runtime.when_imported("rq.queue", functools.partial(_patch_queue, runtime, reporter))
        runtime.recorder.collectors.append(reporter.look_around)
    runtime.on_shutdown.append(reporter.stop)
    return reporter


def _patch(runtime: Runtime, reporter: Reporter, owner: str, name: str, rank: Rank, module: ModuleType) -> None:
    """Whoever begins its loop is a candidate."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def loop(self: Any, *args: Any, **kwargs: Any) -> Any:
            reporter.see(self.connection, rank)
            return original(self, *args, **kwargs)

        return loop

    runtime.wrap(getattr(module, owner), name, make)


def _patch_queue(runtime: Runtime, reporter: Reporter, module: ModuleType) -> None:
    """A web process that has a queue knows a Redis."""
    seen: weakref.WeakSet[Any] = weakref.WeakSet()

    @_guard.guarded
    def note(queue: Any) -> None:
        pool = queue.connection.connection_pool
        if pool not in seen:
            seen.add(pool)
            reporter.see(queue.connection, Rank.WEB)

    def make(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def begin(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if runtime.armed:
                note(self)

        return begin

    runtime.wrap(module.Queue, "__init__", make)
