"""What processes left that are gone: taken over, up to a bound of the folder and an age. Above that, it is given up and counted.

A service that ends over and over while its receiver is away leaves a segment each time. Nobody else bounds that.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from chegou_otel.delivery import ledger, process
from chegou_otel.delivery.frames import W_CURSOR, W_HELD, W_SHIPPER, W_SHIPPER_STARTED, W_TOUCHED, Reason
from chegou_otel.delivery.segments import SHIPPER, NotOurs, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

#: All that the dead of a service left may take so many times what one process may hold.
SHARES: Final = 4


def take(path: str, service: int) -> Segment | None:
    """The segment, if nobody ships it: we do from now on."""
    try:
        segment = Segment.open(path, service)
    except NotOurs:
        return None
    # The parent of the work-horse that writes it ships it, and tells the job's end by it.
    if process.is_other(segment.longs[W_SHIPPER], segment.longs[W_SHIPPER_STARTED]) or not segment.lock(SHIPPER):
        segment.close()
        return None
    for reader in segment.readers:
        reader.resume()
    segment.replay = segment.longs[W_HELD]
    segment.foreign = segment.sealed = True
    return segment


def surplus(paths: Iterable[str], service: int, most: int) -> list[Segment]:
    """What lies above ``most`` bytes, the oldest first; taken, and to be given up. Nothing is opened while the folder is small."""
    sizes = {path: _size(path) for path in paths}
    over = sum(sizes.values()) - most
    if over <= 0:
        return []
    found: list[Segment] = []
    for path in sizes:
        segment = take(path, service)
        if segment is not None and segment.orphaned():
            found.append(segment)
        elif segment is not None:
            segment.close()
    over = sum(segment.size for segment in found) - most
    given = []
    for segment in found:
        if over > 0:
            over -= segment.size
            given.append(segment)
        else:
            segment.close()
    return given


def is_too_old(segment: Segment, most: float) -> bool:
    """Whether its writer is gone, and was seen last more than ``most`` seconds ago (0: however long it is)."""
    seen = segment.longs[W_TOUCHED]
    return bool(most and seen) and time.time() - seen > most and segment.orphaned()


def give_up(segment: Segment, reason: Reason) -> None:
    """Count what it holds as lost, and have done with it."""
    segment.settle()
    segment.replay = 0
    segment.holds.clear()
    for reader in segment.readers:
        ledger.count_lost(segment.longs, reader.row, reason, reader.count())
        reader.position = segment.longs[W_CURSOR + reader.row] = segment.position


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0
