"""Frames that are not shipped but handed to a handler, in the process that drains the segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chegou_otel import _guard
from chegou_otel.delivery import ledger
from chegou_otel.delivery.frames import HANDOVER, W_DELIVERED, Kind, Reason
from chegou_otel.delivery.otlp import Scope
from chegou_otel.delivery.protobuf import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chegou_otel.delivery.segments import Segment

    Handlers = Mapping[Kind, Callable[[bytes], object]]


def run(segment: Segment, handlers: Handlers, timeout: float) -> bool:
    """Hand over what lies in ``segment``; False when somebody else is at it for longer than ``timeout``."""
    if not segment.handling.acquire(timeout=max(0.0, timeout)):
        return False
    try:
        reader = segment.readers[HANDOVER]
        for kind, payload, mark in reader.handovers():
            # Counted and behind the cursor before the handler runs: it is not run twice, even if it kills the process.
            segment.longs[W_DELIVERED + HANDOVER] += 1
            reader.commit(mark)
            if not _handle(handlers, kind, payload):
                segment.longs[W_DELIVERED + HANDOVER] -= 1
                ledger.count_lost(segment.longs, HANDOVER, Reason.UNHANDLED)
    finally:
        segment.handling.release()
    return True


def _handle(handlers: Handlers, number: int, payload: bytes) -> bool:
    kind = Kind(number)
    handler = handlers.get(kind)
    if handler is None:
        return False
    try:
        handler(payload)
    except Exception as error:
        if _guard.is_foreign(error):
            raise
        _guard.report(f"chegou_otel.delivery, the handler of {kind.name}", error)
        return False
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
