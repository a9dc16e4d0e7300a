"""One library, one file. This is the table: name, module, and what has to be installed for it.

An integration module has ``install(runtime)``, which registers patches with ``runtime.when_imported``; it never imports its
library itself. Detected is quiet, requested is loud: a missing library is a reason in ``Telemetry.skipped``, unless it was asked
for by name.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from chegou_otel import _guard

if TYPE_CHECKING:
    from chegou_otel._runtime import Runtime


class Integration(NamedTuple):
    """A row: the distributions that it works with (any one of them will do; none: the standard library)."""

    module: str
    requires: tuple[str, ...] = ()


TABLE: Final[dict[str, Integration]] = {
    "threads": Integration("threads"),
    "django": Integration("django", ("django>=4.2",)),
    "commands": Integration("commands", ("django>=4.2",)),
    "cache": Integration("cache", ("django>=4.2",)),
    "rq": Integration("rq", ("rq>=2.12",)),
    "redis": Integration("redis", ("redis>=4.5",)),
    "sqlite3": Integration("sqlite3"),
    "psycopg": Integration("psycopg", ("psycopg>=3.1",)),
    "psycopg2": Integration("psycopg2", ("psycopg2>=2.9", "psycopg2-binary>=2.9")),
    "mysqlclient": Integration("mysqlclient", ("mysqlclient>=2.1",)),
    "requests": Integration("requests", ("requests>=2.28",)),
    "httpx": Integration("httpx", ("httpx>=0.24",)),
    "urllib3": Integration("urllib3", ("urllib3>=1.26",)),
    "urllib": Integration("urllib"),
    "aiohttp": Integration("aiohttp", ("aiohttp>=3.8",)),
    "structlog": Integration("structlog", ("structlog>=22.1",)),
    "loguru": Integration("loguru", ("loguru>=0.6",)),
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def unmet(requires: tuple[str, ...]) -> str | None:
    """Why none of ``requires`` is met, or ``None`` when one is."""
    reasons = []
    for requirement in requires:
        name, _, lowest = requirement.partition(">=")
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            reasons.append(f"{name} is not installed")
            continue
        if _numbers(found) >= _numbers(lowest):
            return None
        reasons.append(f"{name} {found} is older than {lowest}")
    return "; ".join(reasons) or None


def check_name(name: str) -> None:
    """Raise ``ValueError`` for a name that is no integration."""
    if name not in TABLE:
        raise ValueError(f"there is no integration {name!r}; the integrations are {', '.join(TABLE)}")


def install_all(runtime: Runtime) -> list[str]:
    """Install what is wanted and there. Returns the names; reasons for the others are in ``runtime.skipped``."""
    wanted = runtime.settings.integrations
    installed = []
    for name, row in TABLE.items():
        if (wanted is not None and name not in wanted) or name in runtime.settings.disabled_integrations:
            runtime.skipped[name] = "not wanted (integrations, disabled_integrations)"
        elif (reason := unmet(row.requires)) is not None:
            runtime.skipped[name] = reason
            if wanted is not None:
                _guard.logger.warning("integration %s was asked for and is skipped: %s", name, reason)
        elif _install(name, row, runtime):
            installed.append(name)
    return installed


def _install(name: str, row: Integration, runtime: Runtime) -> bool:
    """Install one integration; it says why not by returning a reason."""
    try:
        module = importlib.import_module(f"{__name__}.{row.module}")
        reason = module.install(runtime)
    except Exception as error:
        _guard.pass_foreign(error)
        _guard.report(f"integration {name}", error)
        reason = f"{type(error).__name__}: {error}"
    if isinstance(reason, str):
        runtime.skipped[name] = reason
        return False
    return True
