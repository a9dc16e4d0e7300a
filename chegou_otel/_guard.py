"""Our failure never becomes the application's.

``guarded`` wraps *our* code, never the user's call. It stops ``Exception`` and nothing wider, and it never stops an
exception that somebody else raised into our frame: RQ's time-outs and stop requests come out of signal handlers, in
whatever code runs at that moment, and are plain ``Exception`` subclasses. Integrations register such types with
:func:`let_through`.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

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


def let_through(*types: type[BaseException]) -> None:
    """Register exception types that arrive asynchronously and must pass through every guard."""
    global _let_through
    with _lock:
        _let_through = tuple({*_let_through, *types})


def is_foreign(error: BaseException) -> bool:
    """Whether ``error`` was raised into our code from outside (a time-out, a stop request) and must go on its way."""
    return isinstance(error, _let_through)


def pass_foreign(error: BaseException) -> None:
    """First thing in an ``except Exception`` that has an answer of its own: raise again what is not ours to answer."""
    if isinstance(error, _let_through):
        raise error


def report(where: str, error: BaseException) -> None:
    """Count a failure of ours and say so once per place; raise it under our own tests."""
    failures[where] += 1
    if strict:
        raise error
    if where in _said:
        return
    _said.add(where)
    logger.warning("chegou_otel failed in %s; the application goes on, with less telemetry", where, exc_info=error)


def _under(error: BaseException, known: BaseException | None) -> BaseException | None:
    """The foreign exception that ``error`` hides: the standard library, too, can fail while it cleans up after an alarm."""
    seen: BaseException | None = error
    while seen is not None and seen is not known:
        if isinstance(seen, _let_through):
            return seen
        seen = seen.__context__
    return None


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """Run ``function``; on failure count it, say so once, and return ``None``."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if isinstance(error, _let_through):
                raise
            failed = error
        # Outside of the ``except``: what the caller was handling already is none of this failure's doing.
        foreign = _under(failed, sys.exception())
        if foreign is not None:
            raise foreign
        report(f"{function.__module__}.{function.__qualname__}", failed)
        return None

    return run
