"""structlog: events of loggers that print for themselves. Those that wrap the standard library's arrive by it."""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING, Any

from chegou_otel._guard import guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime

_LEVELS = {
    "debug": 10,
    "info": 20,
    "msg": 20,
    "warn": 30,
    "warning": 30,
    "err": 40,
    "error": 40,
    "exception": 40,
    "critical": 50,
    "fatal": 50,
}


def install(runtime: Runtime) -> None:
    runtime.when_imported("structlog._base", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    @guarded
    def tell(logger: Any, method: str, event: object, keywords: dict[str, Any]) -> None:
        if isinstance(logger._logger, logging.Logger):
            return
        fields = {**logger._context, **keywords}
        error = _error(fields.pop("exc_info", None), method)
        frame = _caller()
        name = str(fields.pop("logger", None) or frame.f_globals.get("__name__", "structlog"))
        code = frame.f_code
        record = logging.LogRecord(name, _LEVELS.get(method, 20), code.co_filename, frame.f_lineno, str(event), None, error, code.co_name)
        taken = record.__dict__
        taken.update({key: value for key, value in fields.items() if key not in taken})
        runtime.bridge.handle(record)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def _proxy_to_logger(self: Any, method_name: str, event: Any = None, *event_args: Any, **event_kw: Any) -> Any:
            if runtime.armed:
                tell(self, method_name, event, event_kw)
            return original(self, method_name, event, *event_args, **event_kw)

        return _proxy_to_logger

    runtime.wrap(module.BoundLoggerBase, "_proxy_to_logger", make)


def _error(given: Any, method: str) -> Any:
    """``exc_info`` as the standard library has it."""
    if isinstance(given, BaseException):
        return (type(given), given, given.__traceback__)
    if given is True or (given is None and method == "exception"):
        return sys.exc_info()
    return given if isinstance(given, tuple) else None


def _caller() -> Any:
    """The frame that logged: the first one outside of structlog and this module."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("structlog", "chegou_otel")):
        frame = frame.f_back
    return frame
