"""Threads and executors carry the OpenTelemetry context, and with it the correlation ID, of whoever started the work."""

from __future__ import annotations

import functools
from concurrent.futures import thread as pools
from threading import Thread
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context, attach, get_current

from chegou_otel.correlation import reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from chegou_otel._runtime import Runtime


def install(runtime: Runtime) -> None:
    """Wrap ``Thread.start`` and ``ThreadPoolExecutor.submit``."""

    def make_start(original: Callable[[Thread], None]) -> Callable[[Thread], None]:
        @functools.wraps(original)
        def start(self: Thread) -> None:
            context = get_current()
            # A pool's thread outlives the request that happened to need it: its tasks carry contexts, it does not.
            if runtime.armed and context and getattr(self, "_target", None) is not pools._worker:
                self.run = functools.partial(_run_thread, self, self.run, context)  # type: ignore[method-assign]
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


def _run_thread(thread: Thread, run: Callable[[], None], context: Context) -> None:
    # The partial holds the thread and the thread held the partial: without this, only the garbage collector frees them.
    del thread.run
    _within(context, run)


def _within(context: Context, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    token = attach(context)
    try:
        return function(*args, **kwargs)
    finally:
        reset(token)
