"""The ledger: per row, created = delivered + rejected + dropped (by reason) + held; ambiguous is part of delivered.

The counters lie in the segments' headers, so they survive a kill. A segment's counters stay with its file when it is used
again, and move to another segment of the process when it is removed: nothing is counted twice or forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.delivery.frames import (
    HANDOVER,
    REASONS,
    ROW_OF_KIND,
    ROWS,
    W_AMBIGUOUS,
    W_CREATED,
    W_DELIVERED,
    W_DROPPED,
    W_END,
    W_REJECTED,
    Reason,
    Signal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chegou_otel.delivery.readers import Reader

NAMES: Final = {Signal.TRACES: "traces", Signal.LOGS: "logs", Signal.METRICS: "metrics", HANDOVER: "handover"}
_KINDS: Final = [[int(kind) for kind, its_row in ROW_OF_KIND.items() if its_row == row] for row in range(ROWS)]


@dataclass(frozen=True, slots=True)
class Account:
    """One signal's line in the ledger."""

    created: int = 0
    delivered: int = 0
    rejected: int = 0
    ambiguous: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return self.created - self.delivered - self.rejected - sum(self.dropped.values())


def loose() -> list[int]:
    """Counters for what happens while there is no segment."""
    return [0] * W_END


def count_drop(counters: Any, kind: int, reason: Reason) -> None:
    """A frame that never made it into a segment."""
    row = ROW_OF_KIND.get(kind)  # type: ignore[call-overload]
    if row is not None:
        counters[W_CREATED + kind] += 1
        counters[W_DROPPED + REASONS * row + reason] += 1


def count_lost(counters: Any, row: int, reason: Reason, count: int = 1) -> None:
    """Frames that were in a segment and will not be delivered."""
    counters[W_DROPPED + REASONS * row + reason] += count


def dropped(counters: Iterable[Any], row: int) -> int:
    """How many frames of a row are lost by several sets of counters, for whatever reason."""
    base = W_DROPPED + REASONS * row
    return sum(sum(each[base : base + REASONS]) for each in counters)


def give_up(counters: Any, readers: Iterable[Reader]) -> None:
    """The process ends, and what it holds lies where nobody will find it."""
    for reader in readers:
        count_lost(counters, reader.row, Reason.CLOSED, reader.count())


def balance(counters: Any, held: list[int]) -> None:
    """Set what was created to what can be accounted for: what became of it, and what is held."""
    for row, account in enumerate(snapshot([counters]).values()):
        first = _KINDS[row][0]
        counters[W_CREATED + first] += held[row] - account.held


def move(source: Any, target: Any) -> None:
    """Add one set of counters to another, and empty it."""
    for word in range(W_CREATED, W_END):
        if source[word]:
            target[word] += source[word]
            source[word] = 0


def note(source: Any, target: list[int]) -> None:
    """Add one set of counters to another, and leave it as it is."""
    for word in range(W_CREATED, W_END):
        target[word] += source[word]


def snapshot(counters: Iterable[Any], without: Sequence[int] = ()) -> dict[str, Account]:
    """The ledger over several sets of counters, less those of ``without``."""
    totals = [-count for count in without] or loose()
    for each in counters:
        for word in range(W_CREATED, W_END):
            totals[word] += each[word]
    return {name: _account(totals, row) for row, name in NAMES.items()}


def _account(totals: list[int], row: int) -> Account:
    base = W_DROPPED + REASONS * row
    return Account(
        created=sum(totals[W_CREATED + kind] for kind in _KINDS[row]),
        delivered=totals[W_DELIVERED + row],
        rejected=totals[W_REJECTED + row],
        ambiguous=totals[W_AMBIGUOUS + row],
        dropped={reason.name.lower(): totals[base + reason] for reason in Reason if totals[base + reason]},
    )
