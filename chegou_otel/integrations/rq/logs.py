"""RQ's own log lines without the arguments and results of calls: ``tasks.f('jane@…')`` becomes ``tasks.f(…)`` on its way to OTLP.

The console shows what RQ prints, unchanged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging

    from chegou_otel._runtime import Runtime

_LOGGERS: Final = ("rq.worker", "rq.job", "rq.queue", "rq.scheduler")
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_CALL: Final = re.compile(r"\b([A-Za-z_][\w.]*)\(.+\)(?= \(| job in |$)", re.DOTALL)
_RESULT: Final = re.compile(r"(\bresult: ).+", re.DOTALL | re.IGNORECASE)
#: What RQ puts into ``extra`` when a job fails.
_HIDDEN: Final = frozenset({"arguments", "kwargs"})


def install(runtime: Runtime) -> None:
    for name in _LOGGERS:
        runtime.bridge.veil(name, rewrite, _HIDDEN)


def rewrite(record: logging.LogRecord, body: str) -> str:
    """The line without colours, a job's description without its arguments, and no result (told at DEBUG)."""
    plain = _COLOURS.sub("", body)
    first, newline, rest = plain.partition("\n")
    if record.exc_info or "exception raised while executing" in first:
        return f"{first}{newline}{rest}"
    return _RESULT.sub(r"\1…", _CALL.sub(r"\1(…)", plain))
