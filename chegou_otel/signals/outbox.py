"""Metrics between their collection and the recorder.

All of a collection is gathered first and then recorded in one go, so a kill finds nearly always all of it or nothing. A total is told
again by the next total. A delta is told once: when the spool had no room for it, it waits here for the next collection.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from chegou_otel.delivery.frames import Kind, Priority

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from chegou_otel.delivery.otlp import Scope

#: Bytes of deltas that may wait. The oldest go first; the recorder counts a drop for every attempt that fails.
MAX_BYTES: Final = 1024 * 1024


class Gathered(NamedTuple):
    """A ``METRIC`` frame; with ``once``, nothing later says the same."""

    scope: Scope
    payload: bytes
    once: bool


class Outbox:
    """Of one collector."""

    def __init__(self) -> None:
        self._gathered: deque[Gathered] = deque()

    def clear(self) -> None:
        """In a forked child: what waits is the parent's to tell."""
        self._gathered = deque()

    def put(self, scope: Scope, payload: bytes, *, once: bool) -> None:
        self._gathered.append(Gathered(scope, payload, once))

    def send(self, append: Callable[..., Any]) -> None:
        """Record what was gathered; what must not be lost and found no room stays."""
        refused = []
        with contextlib.suppress(IndexError):  # empty; another thread may send, too
            while True:
                each = self._gathered.popleft()
                if append(Kind.METRIC, each.scope, each.payload, Priority.HIGH) is False and each.once:
                    refused.append(each)
        self._gathered.extendleft(reversed(_newest(refused)))


def _newest(refused: list[Gathered]) -> list[Gathered]:
    room, place = MAX_BYTES, len(refused)
    while place and len(refused[place - 1].payload) <= room:
        place -= 1
        room -= len(refused[place].payload)
    return refused[place:]
