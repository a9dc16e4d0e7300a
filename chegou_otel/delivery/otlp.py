"""OTLP's wire format, the parts that we write.

Spans, log records and metrics are encoded once, when they end, straight to protobuf bytes. The layout is that of
``opentelemetry/proto`` (trace, logs, metrics, common, resource; v1). Field tags are spelled out as byte constants, because
looking them up would cost more than writing them.
"""

from __future__ import annotations

import datetime as dt
import decimal
import pathlib
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from chegou_otel.delivery.protobuf import RESOURCE_OF_SCOPE, field

if TYPE_CHECKING:
    from collections.abc import Callable

_SMALL: Final = 1 << 12
_MAX_DEPTH: Final = 6
_DOUBLE: Final = struct.Struct("<d").pack
_INT64: Final = 1 << 63


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_VARINTS: Final = [_varint(n) for n in range(_SMALL)]


def varint(value: int) -> bytes:
    """``value`` (not negative) as a base-128 varint."""
    return _VARINTS[value] if value < _SMALL else _varint(value)


def message(tag: bytes, body: bytes) -> bytes:
    """A length-delimited field: tag, length, body."""
    return tag + varint(len(body)) + body


def text(tag: bytes, value: str) -> bytes:
    """A string field; lone surrogates are escaped, since OTLP strings are valid UTF-8."""
    return message(tag, encode_text(value))


def encode_text(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace")


def any_value(value: object, depth: int = 0) -> bytes:
    """The body of an ``AnyValue``. Unknown types become their type's name: an object's ``repr`` may hold anything."""
    encode = _ENCODERS.get(type(value))
    if encode is not None:
        return encode(value)
    if depth >= _MAX_DEPTH:
        return _string("…")
    if isinstance(value, Mapping):
        items = (message(b"\x0a", key_value(str(k), v, depth + 1)) for k, v in value.items())
        return message(b"\x32", b"".join(items))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return message(b"\x2a", b"".join(message(b"\x0a", any_value(v, depth + 1)) for v in value))
    for base, fallback in _BASES:
        if isinstance(value, base):
            return fallback(value)
    return _string(f"<{type(value).__qualname__}>")


def _string(value: str) -> bytes:
    return message(b"\x0a", encode_text(value))


def _integer(value: int) -> bytes:
    if -_INT64 <= value < _INT64:
        return b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)
    return _string(str(value))


_ENCODERS: dict[type, Callable[..., bytes]] = {
    str: _string,
    bool: lambda value: b"\x10\x01" if value else b"\x10\x00",
    int: _integer,
    float: lambda value: b"\x21" + _DOUBLE(value),
    bytes: lambda value: message(b"\x3a", value),
    type(None): lambda _value: b"",
}
#: Values whose text says all there is to say.
PLAIN: Final = (uuid.UUID, decimal.Decimal, dt.date, dt.time, dt.timedelta, pathlib.PurePath)
_BASES: Final[tuple[tuple[type | tuple[type, ...], Callable[..., bytes]], ...]] = (
    (bool, _ENCODERS[bool]),
    (int, lambda value: _integer(int(value))),
    (float, lambda value: b"\x21" + _DOUBLE(float(value))),
    (str, lambda value: _string(str.__str__(value))),
    (PLAIN, lambda value: _string(str(value))),
)

_KEYS: dict[str, bytes] = {}
_KEYS_MAX: Final = 4096


def _key(key: str) -> bytes:
    encoded = text(b"\x0a", key)
    if len(_KEYS) < _KEYS_MAX:
        _KEYS[key] = encoded
    return encoded


def key_value(key: str, value: object, depth: int = 0) -> bytes:
    """The body of a ``KeyValue``."""
    body = any_value(value, depth)
    return (_KEYS.get(key) or _key(key)) + b"\x12" + varint(len(body)) + body


def attribute(tag: bytes, key: str, value: object) -> bytes:
    """One attribute as a field of its owner: ``tag`` is the owner's field for attributes."""
    return message(tag, key_value(key, value))


def attributes(tag: bytes, items: Mapping[str, object]) -> bytes:
    return b"".join([attribute(tag, key, value) for key, value in items.items()])


#: The attribute fields of the messages that have one.
SPAN: Final = b"\x4a"
EVENT: Final = b"\x1a"
LINK: Final = b"\x22"
LOG: Final = b"\x32"
NUMBER_POINT: Final = b"\x3a"
HISTOGRAM_POINT: Final = b"\x4a"
RESOURCE: Final = b"\x0a"
SCOPE: Final = b"\x1a"


class Scope:
    """An instrumentation scope, numbered and encoded once per process.

    ``resource`` is the encoded Resource that it speaks for when that is not the process itself: what a deployment has one of,
    whichever process looks at it.
    """

    __slots__ = ("block", "name", "number", "resource", "schema_url", "version")

    _all: Final[dict[tuple[str, str, str, bytes], Scope]] = {}
    _by_number: Final[list[Scope]] = []

    def __init__(self, number: int, name: str, version: str, schema_url: str, block: bytes, resource: bytes = b"") -> None:
        self.number = number
        self.name = name
        self.version = version
        self.schema_url = schema_url
        self.block = block
        self.resource = resource

    @classmethod
    def of(
        cls, name: str, version: str = "", schema_url: str = "", items: Mapping[str, object] | None = None, resource: bytes = b""
    ) -> Scope:
        """The scope of that name and version; made on first use. Past 65,000 scopes all further ones share the last."""
        known = cls._all.get((name, version, schema_url, resource))
        if known is None:
            block = text(b"\x0a", name) + (text(b"\x12", version) if version else b"") + attributes(SCOPE, items or {})
            known = cls(min(len(cls._all), 65_000), name, version, schema_url, block, resource)
            cls._all[name, version, schema_url, resource] = known
            cls._by_number.append(known)
        return known

    @classmethod
    def is_known(cls, number: int, head: bytes) -> bool:
        """Whether this process, too, means by ``number`` the scope whose container starts with ``head``."""
        return number < len(cls._by_number) and cls._by_number[number].head() == head

    def head(self) -> bytes:
        """What a scope container starts with: the scope, and its schema's address. In front of it: whose scope it is, if not ours."""
        of = field(RESOURCE_OF_SCOPE, self.resource) if self.resource else b""
        return of + field(b"\x0a", self.block) + (field(b"\x1a", self.schema_url.encode()) if self.schema_url else b"")


def resource_block(items: Mapping[str, object]) -> bytes:
    """The body of a ``Resource``."""
    return attributes(RESOURCE, items)
