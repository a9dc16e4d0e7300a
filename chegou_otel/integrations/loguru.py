"""loguru: every record once, however many sinks there are.

A record that passes from loguru to the standard library or back (both ways are usual) is told by whichever saw it first.
"""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING, Any

from chegou_otel._guard import guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime


class _Under(threading.local):
    """What this thread is in the middle of."""

    loguru: Any = None
    standard = 0


def install(runtime: Runtime) -> None:
    runtime.when_imported("loguru._handler", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    under = _Under()

    @guarded
    def tell(told: dict[str, Any]) -> None:
        found = told["exception"]
        error = (found.type, found.value, found.traceback) if found is not None and found.value is not None else None
        level = told["level"]
        record = logging.LogRecord(
            told["name"] or "loguru", level.no, told["file"].path, told["line"], told["message"], None, error, told["function"]
        )
        record.levelname = level.name
        record.created = told["time"].timestamp()
        taken = record.__dict__
        taken.update({key: value for key, value in told["extra"].items() if key not in taken})
        runtime.bridge.handle(record)

    def make_emit(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def emit(self: Any, record: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if not runtime.armed:
                return original(self, record, *args, **kwargs)
            before = under.loguru
            if before is not record and not under.standard:
                under.loguru = None
                tell(record)
            under.loguru = record
            under.standard += 1  # what a sink passes on to the standard library was told already
            try:
                return original(self, record, *args, **kwargs)
            finally:
                under.standard -= 1

        return emit

    def make_call_handlers(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
            under.standard += 1
            try:
                original(self, record)
            finally:
                under.standard -= 1

        return callHandlers

    runtime.wrap(module.Handler, "emit", make_emit)
    runtime.wrap(logging.Logger, "callHandlers", make_call_handlers)
    runtime.bridge.muted = lambda: under.standard > 1
    runtime.on_shutdown.append(lambda: setattr(runtime.bridge, "muted", None))
