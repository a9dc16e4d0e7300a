"""Redis and Valkey by redis-py, sync, async and cluster: one span per command or pipeline.

Arguments are never recorded. What a library does for itself (RQ's bookkeeping) is noise and stays out: such code runs under
:data:`QUIET`.
"""

from __future__ import annotations

import functools
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import create_key

from chegou_otel._context import get_current
from chegou_otel._guard import guarded, pass_foreign
from chegou_otel.integrations import upstream
from chegou_otel.signals.encoding import Static
from chegou_otel.signals.errors import type_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.signals.metrics import Series

#: A context in which this is true makes no Redis spans.
QUIET: Final = create_key("chegou-otel-redis-quiet")

_CLIENT: Final = 2
_MAX_CACHED: Final = 2_000
_MAX_NAMED: Final = 8
Target = tuple[str, int | None, str]


def install(runtime: Runtime) -> str | None:
    reason = upstream.take_over(runtime, "redis")
    if reason is not None:
        return reason
    commands = Commands(runtime)
    runtime.when_imported("redis.client", functools.partial(_patch_sync, runtime, commands))
    runtime.when_imported("redis.asyncio.client", functools.partial(_patch_async, runtime, commands))
    runtime.when_imported("redis.cluster", functools.partial(_patch_cluster, runtime, commands))
    return None


class Commands:
    """Spans and measurements of commands, constant parts cached per command and server."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._tracer = runtime.tracer("chegou_otel.redis")
        self._duration = runtime.metrics.histogram("db.client.operation.duration", "s", "Duration of database operations.")
        self._known: dict[tuple[Target, str], tuple[Static, Series]] = {}

    def quiet(self) -> bool:
        return not self.runtime.armed or QUIET in get_current()

    @guarded
    def done(self, client: Any, name: str, start: int, error: BaseException | None, size: int | None = None) -> None:
        """Record a command that ran from ``start`` (nanoseconds) until now; ``size`` is a pipeline's."""
        end = time_ns()
        target = _target(client)
        static, series = self._known.get((target, name)) or self._new(target, name)
        attributes = {"db.operation.batch.size": size} if size is not None else None
        if error is not None:
            series = self._duration.series((*series.labels, ("error.type", type_name(error))))
        series.record((end - start) / 1e9, self._tracer.leaf(static, start, attributes, error, end))

    def _new(self, target: Target, name: str) -> tuple[Static, Series]:
        host, port, database = target
        fields: dict[str, Any] = {"db.system.name": "redis", "db.operation.name": name}
        where = (("db.namespace", database), ("server.address", host), ("server.port", port))
        fields.update({key: value for key, value in where if value})
        found = (Static(name, _CLIENT, fields), self._duration.series(tuple(fields.items())))
        if len(self._known) < _MAX_CACHED:
            self._known[target, name] = found
        return found

    def make(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A replacement for ``execute_command``."""

        @functools.wraps(original)
        def execute_command(client: Any, *args: Any, **options: Any) -> Any:
            if self.quiet():
                return original(client, *args, **options)
            start = time_ns()
            try:
                answer = original(client, *args, **options)
            except BaseException as error:
                self.done(client, _name(args), start, error)
                raise
            self.done(client, _name(args), start, None)
            return answer

        return execute_command

    def make_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def execute_command(client: Any, *args: Any, **options: Any) -> Any:
            if self.quiet():
                return await original(client, *args, **options)
            start = time_ns()
            try:
                answer = await original(client, *args, **options)
            except BaseException as error:
                self.done(client, _name(args), start, error)
                raise
            self.done(client, _name(args), start, None)
            return answer

        return execute_command

    def make_pipeline(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A replacement for ``Pipeline.execute``."""

        @functools.wraps(original)
        def execute(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            if self.quiet() or not (stack := _stack(pipeline)):
                return original(pipeline, *args, **kwargs)
            name, size, start = _pipeline_name(stack), len(stack), time_ns()
            try:
                answer = original(pipeline, *args, **kwargs)
            except BaseException as error:
                self.done(pipeline, name, start, error, size)
                raise
            self.done(pipeline, name, start, None, size)
            return answer

        return execute

    def make_async_pipeline(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def execute(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            if self.quiet() or not (stack := _stack(pipeline)):
                return await original(pipeline, *args, **kwargs)
            name, size, start = _pipeline_name(stack), len(stack), time_ns()
            try:
                answer = await original(pipeline, *args, **kwargs)
            except BaseException as error:
                self.done(pipeline, name, start, error, size)
                raise
            self.done(pipeline, name, start, None, size)
            return answer

        return execute


def _patch_sync(runtime: Runtime, commands: Commands, module: ModuleType) -> None:
    runtime.wrap(module.Redis, "execute_command", commands.make)
    runtime.wrap(module.Pipeline, "immediate_execute_command", commands.make)
    runtime.wrap(module.Pipeline, "execute", commands.make_pipeline)


def _patch_async(runtime: Runtime, commands: Commands, module: ModuleType) -> None:
    runtime.wrap(module.Redis, "execute_command", commands.make_async)
    runtime.wrap(module.Pipeline, "immediate_execute_command", commands.make_async)
    runtime.wrap(module.Pipeline, "execute", commands.make_async_pipeline)


def _patch_cluster(runtime: Runtime, commands: Commands, module: ModuleType) -> None:
    runtime.wrap(module.RedisCluster, "execute_command", commands.make)
    runtime.wrap(module.ClusterPipeline, "execute", commands.make_pipeline)


def _name(args: tuple[Any, ...]) -> str:
    command = args[0] if args else "COMMAND"
    return command if type(command) is str else str(command, "ascii", "replace") if isinstance(command, bytes) else str(command)


def _stack(pipeline: Any) -> Any:
    try:
        return pipeline.command_stack
    except AttributeError:
        return pipeline._execution_strategy.command_queue


def _pipeline_name(stack: Any) -> str:
    """``MULTI SET GET`` for a short pipeline, ``PIPELINE`` for a long one: names stay few."""
    try:
        names = [_name(command[0] if isinstance(command, tuple) else command.args) for command in stack[:_MAX_NAMED]]
    except Exception as failure:
        pass_foreign(failure)
        return "PIPELINE"
    return "PIPELINE" if len(stack) > _MAX_NAMED or not names else f"PIPELINE {' '.join(sorted(set(names)))}"


def _target(client: Any) -> Target:
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        return ("", None, "")
    known: Target | None = pool.__dict__.get("_chegou_target")
    if known is None:
        kwargs = pool.connection_kwargs
        known = (str(kwargs.get("host") or kwargs.get("path") or "localhost"), kwargs.get("port"), str(kwargs.get("db") or 0))
        pool.__dict__["_chegou_target"] = known
    return known
