"""Django's own log lines of SQL (``django.db.backends`` at DEBUG) carry literals and parameters: they leave as the spans' SQL does.

The console shows what Django prints, unchanged.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging

    from chegou_otel._runtime import Runtime
    from chegou_otel.redaction import Redactor

_LOGGERS: Final = ("django.db.backends", "django.db.backends.schema")
_HIDDEN: Final = frozenset({"sql", "params"})


def install(runtime: Runtime) -> None:
    for name in _LOGGERS:
        runtime.bridge.veil(name, functools.partial(rewrite, runtime.redactor), _HIDDEN)


def rewrite(redactor: Redactor, record: logging.LogRecord, body: str) -> str:
    """The statement without its values, in front of it the time that it took."""
    told = record.__dict__
    if "sql" not in told:
        return body
    statement = redactor.sql(str(told["sql"]), double_quoted_strings=_is_mysql(told.get("alias")))
    return f"({told['duration']:.3f}) {statement}" if isinstance(told.get("duration"), float) else statement


def _is_mysql(alias: object) -> bool:
    from django.db import connections

    return isinstance(alias, str) and connections[alias].vendor == "mysql"
