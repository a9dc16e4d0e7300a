"""A lane takes one signal to its endpoint: batches, verdicts, the circuit breaker."""

from __future__ import annotations

import random
import time
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.delivery import ledger
from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.frames import W_AMBIGUOUS, W_DELIVERED, W_REJECTED, W_SENT, Reason, Signal
from chegou_otel.delivery.protocols import transport_of
from chegou_otel.delivery.readers import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chegou_otel.delivery.answers import Answer
    from chegou_otel.delivery.endpoints import Endpoint
    from chegou_otel.delivery.segments import Segment

MAX_ITEMS: Final = 2000
MAX_BYTES: Final = 512 * 1024
BACKOFF_MAX: Final = 30.0
#: After so many single items in a row were refused by 400, the receiver takes nothing, and splitting is no use.
POISON_MAX: Final = 3


class Outcome(Enum):
    EMPTY = "empty"
    CAUGHT_UP = "caught up"  # delivered, and nothing was left behind when the batch was filled
    MORE = "more"
    FAILED = "failed"


class Circuit:
    """Open after a failure, for a time that doubles with each further one."""

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        #: Whether the receiver said how long to wait.
        self.told = False

    def ready(self) -> bool:
        return time.monotonic() >= self.until

    def failed(self, wait: float | None) -> None:
        self.failures += 1
        backoff = min(BACKOFF_MAX, 0.5 * 2 ** min(self.failures, 10)) * random.uniform(0.8, 1.2)  # noqa: S311
        self.told = wait is not None
        self.until = time.monotonic() + (backoff if wait is None else max(wait, 0.1))

    def worked(self) -> None:
        self.failures = 0
        self.until = 0.0
        self.told = False


class Lane:
    def __init__(self, signal: Signal, endpoint: Endpoint | None, connections: dict[Any, Any]) -> None:
        self.signal = signal
        self.row = int(signal)
        self.endpoint = endpoint
        self.transport = transport_of(signal, endpoint, connections) if endpoint else None
        self.circuit = Circuit()
        self.last: Answer | None = None
        #: For people: when it last worked, and when it last did not and why (seconds since 1970).
        self.delivered_at = self.failed_at = 0.0
        self.failure = ""
        self._items = MAX_ITEMS
        self._poison = 0
        self._turn = False

    def ship(self, sources: Sequence[Segment], deadline: float) -> Outcome:
        """Send one batch."""
        batch, complete = self._batch(sources)
        if not batch.count:
            return Outcome.EMPTY
        if self.transport is None:
            self._finish(batch, dropped=True)
            return Outcome.MORE
        sent_before = self._mark_sent(batch)
        answer = self.last = self.transport.send(batch.body(), deadline)
        self._remember(answer)
        if answer.verdict is Verdict.DELIVERED:
            self._finish(batch, rejected=answer.rejected)
            self._worked()
            return Outcome.CAUGHT_UP if complete else Outcome.MORE
        if answer.verdict is not Verdict.AMBIGUOUS:
            self._unmark_sent(batch, sent_before)
        if answer.verdict in (Verdict.REJECTED, Verdict.TOO_LARGE) and not self._split(batch, answer):
            return Outcome.MORE
        self.circuit.failed(answer.retry_after)
        return Outcome.FAILED

    def _remember(self, answer: Answer) -> None:
        if answer.verdict is Verdict.DELIVERED:
            self.delivered_at = time.time()
        else:
            self.failed_at, self.failure = time.time(), answer.reason

    def pending(self, sources: Sequence[Segment]) -> bool:
        """Whether there is something to send."""
        return bool(self._batch(sources)[0].count)

    def _batch(self, sources: Sequence[Segment]) -> tuple[Batch, bool]:
        """What is to be sent next. Own and adopted segments take turns in being first, so neither waits for ever."""
        self._turn = not self._turn
        ordered = sources if self._turn else sorted(sources, key=lambda each: not each.foreign)
        batch = Batch()
        for segment in ordered:
            if not segment.readers[self.row].fill(batch, MAX_BYTES, self._items):
                return batch, False
        return batch, True

    def _mark_sent(self, batch: Batch) -> list[int]:
        """From now on, whoever finds these items again knows that they may have arrived."""
        before = []
        for mark in batch.marks:
            longs = mark.reader.segment.longs
            before.append(longs[W_SENT + self.row])
            longs[W_SENT + self.row] = max(before[-1], mark.end)
        return before

    def _unmark_sent(self, batch: Batch, before: list[int]) -> None:
        for mark, position in zip(batch.marks, before, strict=True):
            mark.reader.segment.longs[W_SENT + self.row] = position

    def _split(self, batch: Batch, answer: Answer) -> bool:
        """Refused for good: look for the culprit in ever smaller batches, and give up what is refused alone.

        Returns:
            Whether to pause: one item after the other is too large, so it is the receiver's limit that is wrong.
        """
        hopeless = answer.verdict is Verdict.REJECTED and self._poison >= POISON_MAX
        if batch.count > 1 and not hopeless:
            self._items = batch.count // 2
            return False
        self._finish(batch, rejected=batch.count)
        self._poison += 1
        pause = answer.verdict is Verdict.TOO_LARGE and self._poison > POISON_MAX
        self._items = MAX_ITEMS if hopeless else 1 if pause else min(MAX_ITEMS, self._items * 2)
        return pause

    def _worked(self) -> None:
        self.circuit.worked()
        self._poison = 0
        self._items = min(MAX_ITEMS, self._items * 2)

    def _finish(self, batch: Batch, *, rejected: int = 0, dropped: bool = False) -> None:
        """Count what became of the items, and move the cursors behind them."""
        row = self.row
        for mark in batch.marks:
            longs = mark.reader.segment.longs
            refused = min(max(rejected, 0), mark.count)
            rejected -= refused
            if dropped:
                ledger.count_lost(longs, row, Reason.UNHANDLED, mark.count)
            else:
                longs[W_REJECTED + row] += refused
                longs[W_DELIVERED + row] += mark.count - refused
                longs[W_AMBIGUOUS + row] += min(mark.again, mark.count - refused)
            mark.reader.commit(mark)
