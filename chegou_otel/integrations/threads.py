"""Threads and executors carry the OpenTelemetry context, and with it the correlation ID, of whoever started the work."""

from __future__ import annotations

import functools
from concurrent.futures import thread as pools
from threading import Thread
from typing import TYPE_CHECKING, Any

from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.correlation import reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context

    from chegou_otel._runtime import Runtime


def install(runtime: Runtime) -> None:
    """Wrap ``Thread.start`` and ``ThreadPoolExecutor.submit``."""

    def make_start(original: Callable[[Thread], None]) -> Callable[[Thread], None]:
        @functools.wraps(original)
        def start(self: Thread) -> None:
            if runtime.armed:
                carry(self)
            original(self)

        return start

    def make_submit(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            context = get_current()
            if not runtime.armed or not context:
                return original(self, fn, *args, **kwargs)
            return original(self, functools.partial(_within, context, fn), *args, **kwargs)

        return submit

    runtime.wrap(Thread, "start", make_start)
    runtime.wrap(pools.ThreadPoolExecutor, "submit", make_submit)


@guarded
def carry(thread: Thread) -> None:
    """Have the thread run in the caller's context. Once: one that is started twice raises, and runs all the same."""
    context = get_current()
    # A pool's thread outlives the request that happened to need it: its tasks carry contexts, it does not.
    if context and getattr(thread, "_target", None) is not pools._worker and not isinstance(vars(thread).get("run"), _Carried):
        thread.run = _Carried(thread, thread.run, context)  # type: ignore[method-assign]


class _Carried:
    """A thread's ``run``, in the context of whoever started it."""

    __slots__ = ("_context", "_run", "_thread")

    def __init__(self, thread: Thread, run: Callable[[], None], context: Context) -> None:
        self._thread = thread
        self._run = run
        self._context = context

    def __call__(self, *_thread: object) -> None:
        """With the thread or without: who wraps ``run`` as a method of the class, as sentry-sdk does, calls it as a function."""
        # This holds the thread and the thread holds this: without it, only the garbage collector frees them.
        if vars(self._thread).get("run") is self:
            del self._thread.run
        _within(self._context, self._run)


def _within(context: Context, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    token = attach(context)
    try:
        return function(*args, **kwargs)
    finally:
        reset(token)
