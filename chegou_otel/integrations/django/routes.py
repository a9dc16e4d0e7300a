"""What a resolved URL is called."""

from __future__ import annotations

import re
from typing import Any, Final

_ANCHORS: Final = re.compile(r"^\^|(?:(?<!\\)\$|\\[Zz])$")
_MAX_PATTERN: Final = 1_000


def route_of(match: Any, script_name: str) -> str | None:
    """The template of a match, from the root of the host: ``/shop/orders/<int:pk>/``. ``None`` when nothing matched.

    It is Django's own ``ResolverMatch.route`` (includes and language prefixes are in it), without a regular expression's anchors, below
    the application's root (``SCRIPT_NAME``), as the semantic conventions want it.
    """
    route = getattr(match, "route", None)
    if route is None:
        return None
    readable = _ANCHORS.sub("", str(route))[:_MAX_PATTERN]
    return f"{script_name.rstrip('/')}/{readable.removeprefix('/')}"


def excluding(patterns: tuple[str, ...]) -> Any:
    """A function that tells whether a path is excluded; ``None`` when none is. ``*`` matches anything, slashes too."""
    if not patterns:
        return None
    told = [".*".join(re.escape(part) for part in pattern.split("*")) for pattern in patterns]
    return re.compile("|".join(told), re.DOTALL).fullmatch
