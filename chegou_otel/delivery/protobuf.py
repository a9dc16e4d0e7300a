"""As much of protobuf's wire format as an envelope needs: lengths on the way out, a look at the answer on the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MORE: Final = 0x7F
_VARINT, _BYTES = 0, 2
_FIXED: Final = {1: 8, 5: 4}
#: In a segment, in front of a scope that speaks for another resource than its process: field 15 of its container, which never leaves.
RESOURCE_OF_SCOPE: Final = b"\x7a"


def varint(value: int) -> bytes:
    out = bytearray()
    while value > _MORE:
        out.append(value & _MORE | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag: bytes, body: bytes) -> bytes:
    return tag + varint(len(body)) + body


def split(data: bytes) -> tuple[bytes, bytes]:
    """The body of a first field with a short tag, and what follows it."""
    size, start = _varint(data, 1)
    return data[start : start + size], data[start + size :]


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a protobuf message, as far as needed here.

    Raises:
        ValueError: it is not well-formed.
    """
    return list(each_field(data))


def each_field(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The same, one after the other."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire = tag & 7
        if tag >> 3 == 0:
            raise ValueError("field number 0")
        value: int | bytes
        if wire == _VARINT:
            value, position = _varint(data, position)
        else:
            size, position = _varint(data, position) if wire == _BYTES else (_FIXED.get(wire, -1), position)
            if size < 0 or position + size > len(data):
                raise ValueError("truncated, or an unknown wire type")
            value, position = data[position : position + size], position + size
        yield tag >> 3, value


def varints(data: bytes) -> list[int]:
    """Varints in a row: a packed field.

    Raises:
        ValueError: the last one is cut off.
    """
    found, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        found.append(value)
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:  # noqa: PLR2004
            raise ValueError("truncated varint")
        byte = data[position]
        position += 1
        value |= (byte & _MORE) << shift
        if byte <= _MORE:
            return value, position
        shift += 7
