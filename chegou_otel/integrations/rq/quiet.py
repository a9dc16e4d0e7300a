"""Whose Redis commands are told: RQ's own bookkeeping is noise, what the user's code does is not."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context

from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.correlation import reset
from chegou_otel.integrations.redis import QUIET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chegou_otel._runtime import Runtime


def process(runtime: Runtime) -> None:
    """A worker's main thread is RQ's from its first line to its last; only jobs and callbacks are the user's."""
    token = attach(Context({**get_current(), QUIET: True}))
    runtime.on_shutdown.append(lambda: reset(token))


@contextmanager
def quietly() -> Iterator[None]:
    """For commands of our own."""
    token = attach(Context({**get_current(), QUIET: True}))
    try:
        yield
    finally:
        reset(token)


def loud(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the user's code: its Redis calls are its own to see."""
    token = attach(Context({key: value for key, value in get_current().items() if key != QUIET}))
    try:
        return original(*args, **kwargs)
    finally:
        reset(token)


def make_loud(runtime: Runtime, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return loud(original, *args, **kwargs) if runtime.armed else original(*args, **kwargs)

    return call


def make_worker(runtime: Runtime, original: Callable[..., Any]) -> Callable[..., Any]:
    """Around ``work``: this process is a worker from now on."""
    quiet = make_quiet(runtime, original)

    @functools.wraps(original)
    def work(*args: Any, **kwargs: Any) -> Any:
        if runtime.armed:
            _keep(runtime)
        return quiet(*args, **kwargs)

    return work


@guarded
def _keep(runtime: Runtime) -> None:
    runtime.keep_measurements()
    if runtime.switch is not None:
        runtime.switch.begin()


def make_quiet(runtime: Runtime, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not runtime.armed or QUIET in get_current():
            return original(*args, **kwargs)
        token = attach(Context({**get_current(), QUIET: True}))
        try:
            return original(*args, **kwargs)
        finally:
            reset(token)

    return call


def wrap_present(runtime: Runtime, owner: type, name: str, make: Callable[[Any], Any]) -> None:
    """Wrap a hook that stands for itself; one that this version of RQ does not have is skipped, and said so."""
    if hasattr(owner, name):
        runtime.wrap(owner, name, make)
    else:
        runtime.skipped[f"{owner.__module__}.{owner.__qualname__}.{name}"] = "not in this version of RQ"
