"""What an application passes to a span by mistake: it is left out and said once per place, and the application's work goes on.

The SDK warns about some of it and raises for the rest. Nothing is raised here, and a span keeps whatever else it was told.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("chegou_otel")

_LATEST: Final = 2**63 - 1
_STR: Final = frozenset({str})
_said: set[str] = set()


def ignored(what: str, value: object) -> None:
    """Say once that ``what`` was not usable. The value is named by its type only: it may be anything, and secret."""
    if what not in _said:
        _said.add(what)
        logger.warning("ignored, because it is not usable: %s, given as %s", what, type(value).__qualname__)


def fields(what: str, attributes: object) -> Mapping[str, Any]:
    """Attributes with keys that can be sent, whatever was given."""
    if attributes is None:
        return {}
    if not isinstance(attributes, Mapping):
        ignored(what, attributes)
        return {}
    if _STR.issuperset(map(type, attributes)):
        return attributes
    good = {}
    for key, value in attributes.items():
        if isinstance(key, str):
            good[key] = value
        else:
            ignored(f"a key of {what}", key)
    return good


def text(what: str, value: object) -> str:
    """A name; one that is no text becomes its type's name."""
    if isinstance(value, str):
        return value
    ignored(what, value)
    return str(value) if type(value) in (int, float, bool) else type(value).__qualname__


def moment(what: str, value: object) -> int | None:
    """Nanoseconds since the epoch, or ``None`` for now."""
    if value is None or (type(value) is int and 0 <= value <= _LATEST):
        return value
    ignored(what, value)
    return None


def kind(value: object) -> int:
    """A span kind's number."""
    if isinstance(value, SpanKind):
        return value.value
    ignored("the kind of a span", value)
    return SpanKind.INTERNAL.value


def links(value: object) -> Sequence[Link]:
    """The links among what was given."""
    if not isinstance(value, Iterable):
        if value is not None:
            ignored("links of a span", value)
        return ()
    good = []
    for each in value:
        if isinstance(each, Link):
            good.append(each)
        else:
            ignored("a link of a span", each)
    return good


def context(value: object) -> Context | None:
    """A context, or ``None`` for the current one."""
    if value is None or isinstance(value, Context):
        return value
    ignored("the context of a span", value)
    return None
