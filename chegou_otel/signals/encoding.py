"""Attributes on their way out: redacted by provenance, limited, encoded.

What an integration declares constant is encoded once (:class:`Static`). What varies is looked at when it ends: by key first
(a secret key hides any value), then, for free text only, by pattern. Numbers and names pass untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chegou_otel.delivery import otlp
from chegou_otel.delivery.frames import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chegou_otel.redaction import Redactor

#: OTLP's numbers for span kinds, in the order of ``opentelemetry.trace.SpanKind``.
_KINDS: Final = (b"\x30\x01", b"\x30\x02", b"\x30\x03", b"\x30\x04", b"\x30\x05")
_CONSUMER: Final = 4
_PLAIN: Final = frozenset({int, float, bool, type(None)})


class Safe(str):
    """Text that needs no redaction any more: a constant, a name, or what a redactor returned."""

    __slots__ = ()


# A str like any other to the encoder: without this it would be asked what kind of object it is, at several times the cost.
otlp._ENCODERS[Safe] = otlp._string


class Static:
    """What is constant for a route, a statement or a host: name, kind, attributes. Encoded once, cached by who made it.

    Args:
        name: The span's name.
        kind: ``SpanKind.value`` (0 internal, 1 server, 2 client, 3 producer, 4 consumer).
        attributes: Values that need no redaction: constants, names, numbers, or what a redactor returned.
    """

    __slots__ = ("attributes", "block", "kind", "name", "priority")

    def __init__(self, name: str, kind: int = 0, attributes: Mapping[str, object] | None = None) -> None:
        self.name = name
        self.kind = kind
        self.attributes: Mapping[str, object] = attributes or {}
        #: What became of a job is among the last things to go when there is no room, like every failure.
        self.priority = Priority.HIGH if kind == _CONSUMER else Priority.NORMAL
        self.block = otlp.text(b"\x2a", name) + _KINDS[kind] + otlp.attributes(otlp.SPAN, self.attributes)

    def __repr__(self) -> str:
        return f"Static({self.name!r})"


class Encoder:
    """Attribute encoding under one redactor and one set of limits. One per process; cheap to replace."""

    __slots__ = ("max_count", "max_length", "redactor")

    def __init__(self, redactor: Redactor, max_count: int = 128, max_length: int | None = None) -> None:
        self.redactor = redactor
        self.max_count = max_count
        self.max_length = max_length

    def clean(self, key: str, value: object) -> object:
        """The value as it may leave the process. Raises nothing for odd types; those are encoded by their type's name."""
        kind = type(value)
        if kind in _PLAIN or kind is Safe:
            # A number under a secret key is a secret too (an account number, a PIN).
            return "[redacted]" if kind is int and self.redactor.is_secret_key(key) else value
        return self._cut(self.redactor.value(key, value))

    def _cut(self, value: object) -> object:
        if self.max_length is None or not isinstance(value, str):
            return value
        return value[: self.max_length]

    def cleaned(self, items: Mapping[str, object]) -> dict[str, object]:
        return {key: self.clean(key, value) for key, value in items.items()}

    def attributes(self, tag: bytes, items: Mapping[str, object]) -> list[bytes]:
        """The encoded attribute fields of ``items``, at most ``max_count`` of them."""
        clean, key_value, varint = self.clean, otlp.key_value, otlp.varint
        parts = []
        for key, value in items.items():
            body = key_value(key, clean(key, value))
            parts.append(tag + varint(len(body)) + body)
        return parts if len(parts) <= self.max_count else parts[: self.max_count]
