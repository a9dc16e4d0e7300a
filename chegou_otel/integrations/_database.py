"""What all database drivers share: one finished span and one measurement per statement, constant parts cached per statement."""

from __future__ import annotations

import functools
import re
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chegou_otel._guard import guarded
from chegou_otel.correlation import get_correlation_id
from chegou_otel.signals.encoding import Static
from chegou_otel.signals.errors import type_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from chegou_otel._runtime import Runtime
    from chegou_otel.signals.metrics import Series

_CLIENT: Final = 2
_MAX_CACHED: Final = 2_000
_MAX_TEXT: Final = 8_192
_TABLE: Final = re.compile(r"\b(?:FROM|INTO|UPDATE|TABLE|JOIN)\s+(?:ONLY\s+)?([\"`\[]?[\w.]+[\"`\]]?(?:\.[\"`]?\w+[\"`]?)?)", re.IGNORECASE)
_QUOTES: Final = str.maketrans("", "", '"`[]')


class Target(NamedTuple):
    """Where statements go: constant for a connection."""

    namespace: str = ""
    address: str = ""
    port: int | None = None


class Statement(NamedTuple):
    """What is constant for one statement on one target."""

    static: Static
    series: Series
    operation: str


class Database:
    """Made once per driver. ``target_of(connection)`` says where a connection leads."""

    def __init__(self, runtime: Runtime, scope: str, system: str, target_of: Callable[[Any], Target]) -> None:
        self._runtime = runtime
        self._system = system
        self._target_of = target_of
        self._tracer = runtime.tracer(f"chegou_otel.{scope}")
        self._duration = runtime.metrics.histogram("db.client.operation.duration", "s", "Duration of database operations.")
        self._statements: dict[tuple[Target, str], Statement] = {}
        self._commenting = runtime.settings.sql_comment

    def make(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A replacement for ``cursor.execute`` and its like."""
        runtime = self._runtime

        @functools.wraps(original)
        def execute(cursor: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
            if not runtime.armed:
                return original(cursor, sql, *args, **kwargs)
            sent = self._commented(sql) if self._commenting else sql
            start = time_ns()
            try:
                result = original(cursor, sent, *args, **kwargs)
            except BaseException as error:
                self.done(cursor.connection, sql, start, error)
                raise
            self.done(cursor.connection, sql, start, None)
            return result

        return execute

    def make_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The same for an async cursor."""
        runtime = self._runtime

        @functools.wraps(original)
        async def execute(cursor: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
            if not runtime.armed:
                return await original(cursor, sql, *args, **kwargs)
            sent = self._commented(sql) if self._commenting else sql
            start = time_ns()
            try:
                result = await original(cursor, sent, *args, **kwargs)
            except BaseException as error:
                self.done(cursor.connection, sql, start, error)
                raise
            self.done(cursor.connection, sql, start, None)
            return result

        return execute

    @guarded
    def done(self, connection: Any, sql: Any, start: int, error: BaseException | None) -> None:
        """Record a statement that ran from ``start`` (nanoseconds) until now."""
        end = time_ns()
        text = sql if type(sql) is str else _text(sql, connection)
        target = self._target_of(connection)
        statement = self._statements.get((target, text)) or self._statement(target, text)
        if error is None:
            statement.series.record((end - start) / 1e9, self._tracer.leaf(statement.static, start, None, None, end))
            return
        labels = (*statement.series.labels, ("error.type", type_name(error)))
        self._duration.series(labels).record((end - start) / 1e9, self._tracer.leaf(statement.static, start, _code(error), error, end))

    def _statement(self, target: Target, text: str) -> Statement:
        # In MySQL "…" is a string; elsewhere it is a name.
        clean = self._runtime.redactor.sql(text[:_MAX_TEXT], double_quoted_strings=self._system == "mysql")
        operation, summary = summarise(clean)
        attributes: dict[str, Any] = {"db.system.name": self._system, "db.operation.name": operation}
        labels: list[tuple[str, Any]] = [("db.system.name", self._system), ("db.operation.name", operation)]
        for key, value in (("db.namespace", target.namespace), ("server.address", target.address), ("server.port", target.port)):
            if value:
                attributes[key] = value
                labels.append((key, value))
        static = Static(summary, _CLIENT, {**attributes, "db.query.text": clean, "db.query.summary": summary})
        statement = Statement(static, self._duration.series(tuple(labels)), operation)
        if len(self._statements) >= _MAX_CACHED:
            self._statements.clear()  # texts with literals in them: start over rather than grow
        self._statements[target, text] = statement
        return statement

    def _commented(self, sql: Any) -> Any:
        known = get_correlation_id()
        if known is None or type(sql) is not str:
            return sql
        return f"{sql.rstrip().rstrip(';')} /*correlation_id='{known}'*/"


def summarise(sql: str) -> tuple[str, str]:
    """Operation and summary of a statement: ``("SELECT", "SELECT orders_order")``."""
    words = sql.split(None, 1)
    operation = words[0].upper()[:32] if words else "SQL"
    if not operation.isalpha():
        operation = "SQL"
    found = _TABLE.search(sql)
    return operation, f"{operation} {found[1].translate(_QUOTES)}"[:255] if found else operation


def _text(sql: Any, connection: Any) -> str:
    """The text of what is no plain string: bytes, psycopg's composed SQL."""
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    compose = getattr(sql, "as_string", None)
    return str(sql) if compose is None else str(compose(connection))


def _code(error: BaseException) -> dict[str, Any] | None:
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or getattr(error, "sqlite_errorname", None)
    return {"db.response.status_code": str(code)} if code else None
