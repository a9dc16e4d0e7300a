"""Django's cache: one span and one measurement per operation of the configured backends, hits told from misses.

Keys are never recorded. Backends that talk to Redis make their Redis spans below these.
"""

from __future__ import annotations

import functools
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, create_key
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel._context import get_current
from chegou_otel._guard import guarded
from chegou_otel.signals.encoding import Static
from chegou_otel.signals.tracing import activate, deactivate

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime

_INTERNAL: Final = 0
_OPERATIONS: Final = ("get", "set", "add", "delete", "get_many", "set_many", "delete_many", "incr", "touch", "clear")
#: Set while an operation runs: what it calls of itself is part of it.
_BUSY: Final = create_key("chegou-otel-cache")


def install(runtime: Runtime) -> None:
    runtime.when_imported("django.core.cache", functools.partial(_patch, runtime))


class Cache:
    """Wraps a backend's methods on the instance that Django hands out."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._tracer = runtime.tracer("chegou_otel.cache")
        self._duration = runtime.metrics.histogram("chegou.cache.operation.duration", "s", "Duration of Django cache operations.")
        self._known: dict[tuple[str, str, str], tuple[Static, Any]] = {}

    @guarded
    def begin(self) -> Any:
        """Nothing outside of a trace, and nothing inside another cache operation (``get_many`` that loops over ``get``)."""
        context = get_current()
        if _SPAN_KEY not in context or _BUSY in context:
            return None
        return time_ns()

    def constant(self, alias: str, operation: str, result: str) -> tuple[Static, Any]:
        known = self._known.get((alias, operation, result))
        if known is None:
            fields = {"cache.name": alias, "cache.operation": operation, **({"cache.result": result} if result else {})}
            known = self._known[alias, operation, result] = (
                Static(f"cache {operation}", _INTERNAL, fields),
                self._duration.series(tuple(fields.items())),
            )
        return known

    def make(self, alias: str, operation: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = self.begin() if self.runtime.armed else None
            if start is None:
                return original(*args, **kwargs)
            span, token = self._enter(alias, operation, start)
            try:
                value = original(*args, **kwargs)
            except BaseException as error:
                self._leave(alias, operation, start, span, token, None, error)
                raise
            self._leave(alias, operation, start, span, token, _result(operation, args, kwargs, value), None)
            return value

        return call

    def _enter(self, alias: str, operation: str, start: int) -> tuple[Any, Any]:
        span = self._tracer.begin(self.constant(alias, operation, "")[0], None, start)
        return span, activate(span, Context({**get_current(), _BUSY: True}))

    @guarded
    def _leave(
        self, alias: str, operation: str, start: int, span: Any, token: Any, result: str | None, error: BaseException | None
    ) -> None:
        deactivate(token)
        static, series = self.constant(alias, operation, result or "")
        span.set_static(static)
        if error is not None:
            span.fail(error)
        series.record((time_ns() - start) / 1e9, span)
        span.end()


def _result(operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> str | None:
    """``hit`` or ``miss`` for reads. A default that is returned counts as a miss."""
    if operation == "get":
        default = kwargs.get("default", args[1] if len(args) > 1 else None)
        return "miss" if value is default else "hit"
    return ("hit" if value else "miss") if operation == "get_many" else None


def _patch(runtime: Runtime, module: ModuleType) -> None:
    cache = Cache(runtime)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def create_connection(self: Any, alias: str) -> Any:
            backend = original(self, alias)
            if runtime.armed:
                instrument(backend, alias)
            return backend

        return create_connection

    @guarded
    def instrument(backend: Any, alias: str) -> None:
        for operation in _OPERATIONS:
            setattr(backend, operation, cache.make(alias, operation, getattr(backend, operation)))

    runtime.wrap(module.CacheHandler, "create_connection", make)
