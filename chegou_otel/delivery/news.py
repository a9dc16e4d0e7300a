"""What the courier says aloud: one line when delivery begins to fail, one when it works again, one a minute when data is lost."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from chegou_otel.delivery import status
from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.lanes import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chegou_otel.delivery.lanes import Lane
    from chegou_otel.delivery.recorder import Recorder

logger = logging.getLogger("chegou_otel")
LOSS_SECONDS: Final = 60.0


class News:
    def __init__(self, recorder: Recorder, lanes: Sequence[Lane]) -> None:
        self._recorder = recorder
        self._lanes = lanes
        self._tell_at = 0.0
        self._lost: dict[str, int] = {}
        self._lost = self._losses()

    def note(self, lane: Lane, outcome: Outcome) -> None:
        """After a try: say so when it is the first that failed, or the one that made all lanes work again."""
        recorder, answer = self._recorder, lane.last
        if outcome is Outcome.FAILED and not recorder.down and answer is not None and lane.endpoint is not None:
            recorder.down = True
            bound = recorder.pool.maximum * recorder.pool.size >> 20
            if answer.verdict is Verdict.UNSENT and "refused" in answer.reason.lower():
                logger.warning(
                    "nothing listens on %s; telemetry is kept (%d MiB at most); start one with: chegou-otel dev",
                    lane.endpoint.shown,
                    bound,
                )
            else:
                logger.warning("%s does not take telemetry: %s; it is kept (%d MiB at most)", lane.endpoint.shown, answer.reason, bound)
        elif outcome in (Outcome.CAUGHT_UP, Outcome.MORE) and recorder.down and not any(each.circuit.failures for each in self._lanes):
            recorder.down = False
            logger.warning("telemetry is delivered again to %s", lane.endpoint.shown if lane.endpoint else "")

    def tell(self, *, at_once: bool = False) -> None:
        """Once a minute at most, and at the end: what was lost since the last time."""
        now = time.monotonic()
        if now < self._tell_at and not at_once:
            return
        self._tell_at = now + LOSS_SECONDS
        losses = self._losses()
        if lost := {what: count - self._lost.get(what, 0) for what, count in losses.items() if count > self._lost.get(what, 0)}:
            reasons = {lane.signal.name.lower(): lane.last.reason for lane in self._lanes if lane.last is not None and lane.last.reason}
            logger.warning(
                "telemetry was lost: %s%s", ", ".join(f"{count} {what}" for what, count in lost.items()), f" ({reasons})" if reasons else ""
            )
        self._lost = losses

    def _losses(self) -> dict[str, int]:
        """What this process lost. What others lost, whose segments it took over, they have told."""
        books = status.books(self._recorder)
        if books is None:
            return dict(self._lost)
        found = {}
        for name, account in books.own.items():
            found.update({f"{name} dropped ({reason})": count for reason, count in account.dropped.items()})
            found[f"{name} rejected"] = account.rejected
        return found
