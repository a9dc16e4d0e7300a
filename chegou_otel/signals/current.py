"""``start_as_current_span``, as a context manager and as a decorator of functions and coroutines.

It does what the API's does, without its generator, and it lets everything through: the API swallows whatever strikes while it
detaches, a job's time-out included.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation
from chegou_otel._context import attach, get_current
from chegou_otel.signals.errors import message_of, type_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.trace import Span


class CurrentSpan:
    """One ``with`` block. As a decorator it starts a new span at each call."""

    __slots__ = ("_end", "_flags", "_span", "_start", "_token")

    def __init__(self, start: Callable[[], Span], flags: tuple[bool, bool], *, end: bool) -> None:
        self._start = start
        self._flags = flags
        self._end = end
        self._span: Any = None
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        span = self._span = self._start()
        self._token = attach(Context({**get_current(), _SPAN_KEY: span}))
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        try:
            if self._token is not None:
                correlation.reset(self._token)
            # A generator's exit is no error; neither is anything else that is no Exception.
            if isinstance(error, Exception) and self._span.is_recording():
                self._tell(error)
        finally:
            if self._end:
                self._span.end()

    def _tell(self, error: Exception) -> None:
        record, status = self._flags
        if record:
            self._span.record_exception(error)
        if status:
            self._span.set_status(Status(StatusCode.ERROR, f"{type_name(error)}: {message_of(error)}"))

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with CurrentSpan(self._start, self._flags, end=self._end):
                    return await function(*args, **kwargs)

            return run_async

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with CurrentSpan(self._start, self._flags, end=self._end):
                return function(*args, **kwargs)

        return run
