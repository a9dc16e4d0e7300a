"""Frames that are not shipped but handed to a handler, in the process that drains the segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _guard
from chegou_otel.delivery import ledger
from chegou_otel.delivery.frames import FRAME_HEADER, HANDOVER, W_DELIVERED, W_HELD, W_SETTLED, Kind, Reason
from chegou_otel.delivery.otlp import Scope
from chegou_otel.delivery.protobuf import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chegou_otel.delivery.segments import Segment

    Handlers = Mapping[Kind, Callable[[bytes], object]]


#: Frames that may be handed over again; handlers of these kinds bear it.
_REPEATED: Final = (Kind.JOB_CHANGE, Kind.OUTCOME)


class Hold:
    """What a handler returns to keep the frame that it was given: a matter was opened that is not settled yet.

    Until ``release`` the segment stays, and whoever adopts it after this process is given the frame again, and those of
    its kind behind it. So what a handler holds in memory outlives the process.
    """

    __slots__ = ("_segment", "_start")

    def __init__(self) -> None:
        self._segment: Any = None
        self._start = 0

    def bind(self, segment: Segment, start: int) -> None:
        self._segment, self._start = segment, start
        segment.holds[start] = self

    def release(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.holds.pop(self._start, None)
            if segment.fd >= 0:
                _note(segment)

    def settled_by_writer(self, matter: int) -> bool:
        """Whether the writer noted the end of this matter in the segment's header: the frame about it may lie elsewhere."""
        return self._segment is not None and self._segment.fd >= 0 and bool(self._segment.longs[W_SETTLED] == matter)


def _note(segment: Segment) -> None:
    segment.longs[W_HELD] = min(tuple(segment.holds), default=0)


def run(segment: Segment, handlers: Handlers, timeout: float) -> bool:
    """Hand over what lies in ``segment``; False when somebody else is at it for longer than ``timeout``."""
    if not segment.handling.acquire(timeout=max(0.0, timeout)):
        return False
    try:
        reader = segment.readers[HANDOVER]
        if segment.replay:
            _again(segment, handlers)
        for kind, payload, mark in reader.handovers():
            start = mark.end - (len(payload) + FRAME_HEADER + 3 & -4)
            if not segment.holds and kind == Kind.JOB_CHANGE:
                segment.longs[W_HELD] = start  # before the cursor goes on: a kill in between costs nothing
            # Counted and behind the cursor before the handler runs: it is not run twice, even if it kills the process.
            segment.longs[W_DELIVERED + HANDOVER] += 1
            reader.commit(mark)
            if not _handle(segment, start, handlers, kind, payload):
                segment.longs[W_DELIVERED + HANDOVER] -= 1
                ledger.count_lost(segment.longs, HANDOVER, Reason.UNHANDLED)
    finally:
        segment.handling.release()
    return True


def _again(segment: Segment, handlers: Handlers) -> None:
    """What a process held that had this segment before us. Measurements are not repeated: they were added up."""
    start, segment.replay = segment.replay, 0
    for begin, kind, payload in segment.readers[HANDOVER].before(start):
        if kind in _REPEATED:
            _handle(segment, begin, handlers, kind, payload)
    _note(segment)


def _handle(segment: Segment, start: int, handlers: Handlers, number: int, payload: bytes) -> bool:
    kind = Kind(number)
    handler = handlers.get(kind)
    if handler is None:
        return False
    try:
        found = handler(payload)
    except Exception as error:
        _guard.pass_foreign(error)
        _guard.report(f"chegou_otel.delivery, the handler of {kind.name}", error)
        return False
    if isinstance(found, Hold):
        found.bind(segment, start)
    elif kind in _REPEATED and not segment.holds:
        segment.longs[W_HELD] = 0
    return True


def to_sink(segment: Segment, sink: Callable[[Kind, Scope | None, bytes], Any]) -> None:
    """Under a sink, what a child recorded goes there as well, in the order in which it was recorded."""
    found = []
    for row in range(HANDOVER):
        reader = segment.readers[row]
        for kind, mark, number, payload in reader.frames():
            found.append((mark.end, Kind(kind), _scope(number, mark.scopes.get(number)), payload))
            reader.commit(mark)
            segment.longs[W_DELIVERED + row] += 1
    for _end, kind, scope, payload in sorted(found, key=lambda each: each[0]):
        sink(kind, scope, payload)


def _scope(number: int, head: bytes | None) -> Scope | None:
    """The scope whose container starts with ``head``. It may have been made in the child."""
    if head is None:
        return None
    container = dict(fields(head))
    block = container.get(1, b"")
    named = dict(fields(block)) if isinstance(block, bytes) else {}
    name, version, schema = (value.decode() if isinstance(value, bytes) else "" for value in (named.get(1), named.get(2), container.get(3)))
    return Scope(number, name, version, schema, block if isinstance(block, bytes) else b"")
