"""Our failure never becomes the application's.

``guarded`` wraps *our* code, never the user's call. It stops ``Exception`` and nothing wider, and it never stops an
exception that somebody else raised into our frame: RQ's time-outs and stop requests come out of signal handlers, in
whatever code runs at that moment, and are plain ``Exception`` subclasses. Integrations register such types with
:func:`let_through`. Whose exception it is, is asked in one place: :func:`foreign_in`.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from chegou_otel import _forks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("chegou_otel")

#: How often each of our functions failed, by qualified name. Read by ``doctor`` and by tests.
failures: Counter[str] = Counter()

_let_through: tuple[type[BaseException], ...] = ()
_said: set[str] = set()
_lock = threading.Lock()
#: Set by our own test suite only: a guarded failure is raised instead of counted.
strict = False


def write_calmly() -> None:
    """From now on no fork happens while a line of ours is being written: the child would wait for the stream for ever."""

    def call_handlers(record: logging.LogRecord) -> None:
        with _forks.calm():
            logging.Logger.callHandlers(logger, record)

    vars(logger)["callHandlers"] = call_handlers


def let_through(*types: type[BaseException]) -> None:
    """Register exception types that arrive asynchronously and must pass through every guard."""
    global _let_through
    with _lock:
        _let_through = tuple({*_let_through, *types})


def foreign_in(error: BaseException) -> BaseException | None:
    """What was raised into our code from outside (a time-out, a stop request): ``error`` itself, or what it hides.

    The standard library, too, can fail while it cleans up after an alarm, and the alarm is then the context of its failure. What
    our caller was handling before we began is such a context as well, but was not caught in a frame that ``error`` came through.
    """
    if isinstance(error, _let_through):
        return error
    frames: set[FrameType] = set()
    seen: set[int] = set()
    hidden = error.__context__ if _let_through else None
    while hidden is not None:
        step = error.__traceback__
        while step is not None:
            frames.add(step.tb_frame)
            step = step.tb_next
        caught = hidden.__traceback__
        if caught is None or caught.tb_frame not in frames:
            return None
        if isinstance(hidden, _let_through):
            return hidden
        # A context that somebody set by hand may go round in circles: what was looked at has no second turn.
        error, hidden = hidden, None if id(hidden) in seen else hidden.__context__
        seen.add(id(error))
    return None


def pass_foreign(error: BaseException) -> None:
    """First thing in an ``except Exception``: raise what is not ours to answer, also when ``error`` hides it."""
    foreign = foreign_in(error)
    if foreign is not None:
        raise foreign


def report(where: str, error: BaseException) -> None:
    """Count a failure of ours and say so once per place; raise it under our own tests."""
    failures[where] += 1
    if strict:
        raise error
    if where in _said:
        return
    _said.add(where)
    logger.warning("chegou_otel failed in %s; the application goes on, with less telemetry", where, exc_info=error)


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """Run ``function``; on failure count it, say so once, and return ``None``."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            pass_foreign(error)
            report(f"{function.__module__}.{function.__qualname__}", error)
            return None

    return run
