"""Management commands: a root span and a correlation ID of their own for what is neither a server nor a worker."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation, new_id, reset, with_correlation
from chegou_otel.signals.encoding import Static
from chegou_otel.signals.tracing import activate

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime

#: They run for as long as the process does; what they serve makes spans of its own.
_ROLES = frozenset({"web", "worker", "scheduler"})


def install(runtime: Runtime) -> None:
    runtime.when_imported("django.core.management.base", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    tracer = runtime.tracer("chegou_otel.commands")

    @guarded
    def begin(command: Any) -> Callable[[BaseException | None], None] | None:
        if runtime.role in _ROLES or _SPAN_KEY in get_current():
            return None
        name = type(command).__module__.rpartition(".")[2]
        outer = attach(with_correlation(Correlation(new_id())))
        span = tracer.begin(Static(f"manage.py {name}", 0, {"chegou.command": name}))
        inner = activate(span)

        @guarded
        def end(error: BaseException | None) -> None:
            reset(inner)
            reset(outer)
            if error is not None and not _is_success(error):
                span.fail(error)
            span.end()

        return end

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
            end = begin(self) if runtime.armed else None
            if end is None:
                return original(self, *args, **kwargs)
            try:
                result = original(self, *args, **kwargs)
            except BaseException as error:
                end(error)
                raise
            end(None)
            return result

        return execute

    runtime.wrap(module.BaseCommand, "execute", make)


def _is_success(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and error.code in (None, 0)
