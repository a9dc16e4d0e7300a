"""Load the user's configuration as their application does, and see who called ``setup()``."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final

from chegou_otel import _setup
from chegou_otel.integrations import TABLE

_IN_MANAGE_PY: Final = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""")


def find_settings(given: str | None) -> str:
    """The Django settings module: given, from the environment, or as ``manage.py`` names it. Empty: there is none."""
    if not given and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        try:
            found = _IN_MANAGE_PY.search(Path("manage.py").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        given = found[1] if found else None
    if given:
        os.environ["DJANGO_SETTINGS_MODULE"] = given
    return os.environ.get("DJANGO_SETTINGS_MODULE", "")


def load(given: str | None) -> dict[str, Any]:
    """Set up telemetry as the application would. The answer says how, and what went wrong on the way."""
    sys.path[:0] = [] if os.getcwd() in sys.path or "" in sys.path else [os.getcwd()]  # noqa: PTH109
    module = find_settings(given)
    told: dict[str, Any] = {"settings": module, "django": False, "error": "", "by": "chegou-otel run" if _setup.current() else ""}
    if module:
        try:
            import_module("django").setup()
            told["django"] = True
            told["by"] = told["by"] or (module if _setup.current() else _by_application())
        except Exception as error:
            told["error"] = f"{type(error).__name__}: {error}"
    if _setup.current() is None:
        _setup.setup()
        told["by"] = "doctor"
    return told


def _by_application() -> str:
    """The module of the WSGI application, when it calls ``setup()``."""
    from django.conf import settings

    where = str(getattr(settings, "WSGI_APPLICATION", None) or "").rpartition(".")[0]
    if where:
        import_module(where)
    return where if _setup.current() else ""


def versions() -> dict[str, str]:
    """What is installed of what we work with."""
    names = {requirement.partition(">=")[0] for row in TABLE.values() for requirement in row.requires}
    found = {"python": sys.version.partition(" ")[0]}
    for name in sorted({"opentelemetry-sdk", *names}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
