"""What a collection could not record goes out with the next one.

A total is told again by the next total. A delta is told once: when the spool was full at that moment, it waits here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chegou_otel.delivery.frames import Kind, Priority

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from chegou_otel.delivery.otlp import Scope

#: Bytes that may wait. The oldest go first; every attempt that failed was counted as a drop by the recorder.
MAX_BYTES: Final = 1024 * 1024


class Outbox:
    """Of one collector. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Scope, bytes]] = []

    def clear(self) -> None:
        """In a forked child: what waits is the parent's to tell."""
        self._waiting = []

    def retry(self, append: Callable[..., Any]) -> None:
        """Before a collection: what the last one could not record, in its order."""
        waiting, self._waiting = self._waiting, []
        for scope, payload in waiting:
            self.send(append, scope, payload, once=True)
        room = MAX_BYTES
        for place in range(len(self._waiting) - 1, -1, -1):
            room -= len(self._waiting[place][1])
            if room < 0:
                del self._waiting[: place + 1]
                break

    def send(self, append: Callable[..., Any], scope: Scope, payload: bytes, *, once: bool) -> None:
        """Record a ``METRIC`` frame; with ``once``, nothing later says the same."""
        if append(Kind.METRIC, scope, payload, Priority.HIGH) is False and once:
            self._waiting.append((scope, payload))
