"""PostgreSQL by psycopg2. Its types are C types, so connections and cursors are subclassed, whatever factory asks for them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from chegou_otel.integrations._database import Database, Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime


def install(runtime: Runtime) -> None:
    runtime.when_imported("psycopg2", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    database = Database(runtime, "psycopg2", "postgresql", _target)
    extensions = module.extensions

    @functools.cache
    def traced_cursor(base: Any) -> Any:
        return type(base.__name__, (base,), {"execute": database.make(base.execute), "executemany": database.make(base.executemany)})

    @functools.cache
    def traced_connection(base: Any) -> Any:
        def cursor(self: Any, name: Any = None, cursor_factory: Any = None, **kwargs: Any) -> Any:
            wanted = cursor_factory or self.cursor_factory or extensions.cursor
            if runtime.armed and isinstance(wanted, type):
                wanted = traced_cursor(wanted)
            return base.cursor(self, name, cursor_factory=wanted, **kwargs)

        return type(base.__name__, (base,), {"cursor": functools.wraps(base.cursor)(cursor)})

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def connect(dsn: Any = None, connection_factory: Any = None, *args: Any, **kwargs: Any) -> Any:
            factory = connection_factory or extensions.connection
            if runtime.armed and isinstance(factory, type):
                connection_factory = traced_connection(factory)
            return original(dsn, connection_factory, *args, **kwargs)

        return connect

    runtime.wrap(module, "connect", make)


def _target(connection: Any) -> Target:
    known: Target | None = connection.__dict__.get("_chegou_target")
    if known is None:
        info = connection.info
        known = connection.__dict__["_chegou_target"] = Target(info.dbname or "", info.host or "", info.port)
    return known
