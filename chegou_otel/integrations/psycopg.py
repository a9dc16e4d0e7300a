"""PostgreSQL by psycopg 3, sync and async."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from chegou_otel.integrations._database import Database, Target

if TYPE_CHECKING:
    from types import ModuleType

    from chegou_otel._runtime import Runtime


def install(runtime: Runtime) -> None:
    runtime.when_imported("psycopg", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    database = Database(runtime, "psycopg", "postgresql", target)
    for owner in (module.Cursor, module.ServerCursor):
        runtime.wrap(owner, "execute", database.make)
    runtime.wrap(module.Cursor, "executemany", database.make)
    for owner in (module.AsyncCursor, module.AsyncServerCursor):
        runtime.wrap(owner, "execute", database.make_async)
    runtime.wrap(module.AsyncCursor, "executemany", database.make_async)


def target(connection: Any) -> Target:
    """Database, host and port, asked of libpq once per connection."""
    known: Target | None = getattr(connection, "_chegou_target", None)
    if known is None:
        info = connection.info
        known = connection._chegou_target = Target(info.dbname or "", info.host or "", info.port)
    return known
