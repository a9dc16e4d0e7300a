"""SQLite by the standard library. Its types are C types, so connections and cursors are subclassed, whatever factory asks for them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from chegou_otel.integrations._database import Database, Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime


def install(runtime: Runtime) -> None:
    runtime.when_imported("sqlite3", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    database = Database(runtime, "sqlite3", "sqlite", _target)

    @functools.cache
    def traced_cursor(base: Any) -> Any:
        """A subclass of ``base`` whose statements are recorded; what is no cursor class stays as it is."""
        if not (isinstance(base, type) and issubclass(base, module.Cursor)):
            return base
        # Django's cursor calls sqlite3.Cursor.execute by name of its base: only the outermost call is ours.
        return type(
            base.__name__, (base,), {name: database.make(getattr(base, name)) for name in ("execute", "executemany", "executescript")}
        )

    @functools.cache
    def traced_connection(base: Any) -> Any:
        def cursor(self: Any, factory: Any = module.Cursor) -> Any:
            return base.cursor(self, traced_cursor(factory) if runtime.armed else factory)

        def shortcut(name: str) -> Callable[..., Any]:
            def run(self: Any, sql: str, *args: Any) -> Any:
                return getattr(self.cursor(), name)(sql, *args)

            return functools.wraps(getattr(base, name))(run)

        methods = {name: shortcut(name) for name in ("execute", "executemany", "executescript")}
        return type(base.__name__, (base,), {"cursor": functools.wraps(base.cursor)(cursor), **methods})

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def connect(database: Any, *args: Any, **kwargs: Any) -> Any:
            if not runtime.armed or len(args) > 4:  # noqa: PLR2004 - a factory by position, the fifth after the name
                return original(database, *args, **kwargs)
            factory = kwargs.pop("factory", module.Connection)
            connection = original(database, *args, factory=traced_connection(factory) if isinstance(factory, type) else factory, **kwargs)
            if isinstance(connection, module.Connection) and hasattr(connection, "__dict__"):
                connection.__dict__["_chegou_target"] = Target(_name(database))
            return connection

        return connect

    runtime.wrap(module, "connect", make)
    runtime.wrap(module.dbapi2, "connect", make)


def _name(database: Any) -> str:
    """The file's name without its folder: paths differ between machines and say nothing."""
    text = database.decode(errors="replace") if isinstance(database, bytes) else str(database)
    return text if text.startswith((":memory:", "file:")) else text.replace("\\", "/").rpartition("/")[2]


def _target(connection: Any) -> Target:
    target: Target = connection.__dict__.get("_chegou_target", _UNKNOWN)
    return target


_UNKNOWN = Target()
