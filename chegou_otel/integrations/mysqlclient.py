"""MySQL and MariaDB by mysqlclient."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from chegou_otel.integrations._database import Database, Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime


def install(runtime: Runtime) -> None:
    runtime.when_imported("MySQLdb.cursors", functools.partial(_patch_cursors, runtime))
    runtime.when_imported("MySQLdb.connections", functools.partial(_patch_connections, runtime))


def _patch_cursors(runtime: Runtime, module: ModuleType) -> None:
    database = Database(runtime, "mysqlclient", "mysql", _target)
    runtime.wrap(module.BaseCursor, "execute", database.make)


def _patch_connections(runtime: Runtime, module: ModuleType) -> None:
    """The connection is a C type that forgets where it leads: it is noted when it is made."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(self, *args, **kwargs)
            name = kwargs.get("database") or kwargs.get("db") or (args[3] if len(args) > 3 else "")  # noqa: PLR2004
            host = kwargs.get("host") or (args[0] if args else "")
            self.__dict__["_chegou_target"] = Target(str(name), str(host), kwargs.get("port") or None)

        return __init__

    runtime.wrap(module.Connection, "__init__", make)


def _target(connection: Any) -> Target:
    return getattr(connection, "__dict__", {}).get("_chegou_target") or Target()
