"""Reading a segment, from one cursor, into a batch."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from chegou_otel.delivery import ledger
from chegou_otel.delivery.frames import (
    FRAME_HEADER,
    HEADER_BYTES,
    ROW_OF_KIND,
    W_CURSOR,
    W_SENT,
    Kind,
    Reason,
)
from chegou_otel.delivery.protobuf import RESOURCE_OF_SCOPE, field, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel.delivery.segments import Segment

#: Row by kind, -1 for kinds that belong to none.
_HEADS: Final = (int(Kind.RESOURCE), int(Kind.SCOPE))
_ROWS: Final = [-1] * 256
for _kind, _row in ROW_OF_KIND.items():
    _ROWS[_kind] = _row


class Mark:
    """How far a batch reads in one segment; the cursor moves there once the batch is done with."""

    __slots__ = ("again", "count", "cut", "end", "reader", "resource", "scopes", "start")

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.start = self.end = reader.position
        self.resource = reader.resource
        self.scopes = reader.scopes
        self.count = 0
        #: How many of the items may have reached the receiver already.
        self.again = 0
        #: Whether reading ended at the batch's bounds.
        self.cut = False


class Batch:
    """Items of one signal, grouped by resource and scope."""

    __slots__ = ("count", "groups", "marks", "size")

    def __init__(self) -> None:
        self.groups: dict[bytes, dict[bytes, list[bytes]]] = {}
        self.marks: list[Mark] = []
        self.count = 0
        self.size = 0

    def body(self) -> bytes:
        """The export request: nothing but lengths is computed, the items are joined as they are."""
        parts = []
        for resource, scopes in self.groups.items():
            inner = [field(b"\x0a", resource)]
            inner += [field(b"\x12", scope + b"".join(items)) for scope, items in scopes.items() if items]
            if len(inner) > 1:
                parts.append(field(b"\x0a", b"".join(inner)))
        return b"".join(parts)


class Reader:
    """One row's view of a segment: a cursor, and what the frames before it said about resource and scopes."""

    __slots__ = ("position", "resource", "row", "scopes", "segment")

    def __init__(self, segment: Segment, row: int) -> None:
        self.segment = segment
        self.row = row
        self.restart()

    def restart(self) -> None:
        self.position = HEADER_BYTES
        self.resource = b""
        self.scopes: dict[int, bytes] = {}

    def resume(self) -> None:
        """Go to the cursor that the header keeps: learn resource and scopes on the way."""
        self.restart()
        cursor = self.segment.longs[W_CURSOR + self.row]
        mark = Mark(self)
        for _ in self._frames(mark, cursor):
            pass
        self.resource, self.scopes = mark.resource, mark.scopes
        self.position = max(cursor, HEADER_BYTES)

    def commit(self, mark: Mark) -> None:
        self.resource, self.scopes = mark.resource, mark.scopes
        self.position = self.segment.longs[W_CURSOR + self.row] = mark.end

    def pending(self) -> bool:
        """Whether a frame of this row may lie ahead."""
        return self.segment.words[self.position >> 2] != 0

    def count(self) -> int:
        """How many frames of this row lie ahead."""
        return sum(1 for _ in self._frames(Mark(self), self.segment.capacity))

    def unstick(self) -> bool:
        """Step over a frame whose checksum does not fit; only when its writer is gone. Returns whether there was one."""
        segment, position = self.segment, self.position
        if not self.pending() or segment.following(position) is not None:
            return False
        size, kind = segment.words[position >> 2], segment.words[(position >> 2) + 2] & 0xFF
        end = position + size + 3 & -4
        mark = Mark(self)
        # The length may be what is wrong; then nothing behind it can be found.
        mark.end = end if size >= FRAME_HEADER and end < segment.capacity else segment.capacity
        if _ROWS[kind] == self.row:
            ledger.count_lost(segment.longs, self.row, Reason.CORRUPT)
        self.commit(mark)
        return True

    def fill(self, batch: Batch, max_bytes: int, max_items: int) -> bool:
        """Add what lies ahead to ``batch``; False when its bounds left something behind."""
        mark = Mark(self)
        sent = self.segment.longs[W_SENT + self.row]
        known: bytes | None = None
        scopes: dict[int, bytes] | None = None
        lists: dict[int, list[bytes]] = {}
        group: dict[bytes, list[bytes]] = {}
        for _kind, number, payload in self._frames(mark, self.segment.capacity, batch, max_bytes, max_items):
            if mark.resource is not known or mark.scopes is not scopes:
                known, scopes, lists = mark.resource, mark.scopes, {}
                group = batch.groups.setdefault(mark.resource, {})
            items = lists.get(number)
            if items is None:
                head = mark.scopes.get(number, b"")
                if head[:1] == RESOURCE_OF_SCOPE:
                    resource, head = split(head)
                    items = lists[number] = batch.groups.setdefault(resource, {}).setdefault(head, [])
                else:
                    items = lists[number] = group.setdefault(head, [])
            items.append(payload)
            mark.count += 1
            batch.count += 1
            batch.size += len(payload)
            if mark.end <= sent:
                mark.again += 1
        if mark.count:
            batch.marks.append(mark)
        elif mark.end != mark.start:
            self.commit(mark)
        if self.segment.sealed and mark.end != mark.start:
            self.segment.shed()
        return not mark.cut

    def handovers(self) -> Iterator[tuple[int, bytes, Mark]]:
        """The frames that are for handlers, each with the mark to commit once it was handled."""
        mark = Mark(self)
        for kind, _number, payload in self._frames(mark, self.segment.capacity):
            mark.count += 1
            yield kind, payload, mark
        if mark.end != self.position:
            self.commit(mark)
            if self.segment.sealed:
                self.segment.shed()

    def before(self, start: int) -> Iterator[tuple[int, int, bytes]]:
        """The frames of this row from ``start`` up to the cursor, each with where it begins."""
        mark = Mark(self)
        mark.end = start
        for kind, _number, payload in self._frames(mark, self.position):
            yield mark.end - (len(payload) + FRAME_HEADER + 3 & -4), kind, payload

    def frames(self) -> Iterator[tuple[int, Mark, int, bytes]]:
        """What lies ahead: kind, the mark to commit, scope number, payload."""
        mark = Mark(self)
        for kind, number, payload in self._frames(mark, self.segment.capacity):
            yield kind, mark, number, payload

    def _frames(
        self, mark: Mark, limit: int, batch: Batch | None = None, max_bytes: int = 0, max_items: int = 0
    ) -> Iterator[tuple[int, int, bytes]]:
        """Frames of this row from ``mark`` on. While one is being looked at, ``mark.end`` is behind it."""
        segment, row, words, memory = self.segment, self.row, self.segment.words, self.segment.memory
        check, seed, rows = segment.writer_elsewhere, segment.seed, _ROWS
        position = mark.end
        while position < limit:
            index = position >> 2
            size = words[index]
            end = position + size + 3 & -4
            if size < FRAME_HEADER or end > limit:
                return
            meta = words[index + 2]
            kind = meta & 0xFF
            mine = rows[kind] == row
            if mine or kind in _HEADS:
                payload = memory[position + FRAME_HEADER : position + size]
                if check and zlib.crc32(payload, meta) ^ seed != words[index + 1]:
                    return
                if mine:
                    if batch is not None and batch.count and (batch.size + size > max_bytes or batch.count >= max_items):
                        mark.cut = True
                        return
                    position = mark.end = end
                    yield kind, meta >> 16, payload
                    continue
                if kind == Kind.SCOPE:
                    mark.scopes = {**mark.scopes, meta >> 16: payload}
                else:
                    mark.resource, mark.scopes = payload, {}
            position = mark.end = end
