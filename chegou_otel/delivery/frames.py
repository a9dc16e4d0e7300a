"""What lies in a segment: kinds of frames, their layout, and the words of the header page.

A frame is ``length u32 · crc u32 · kind u8 · priority u8 · scope u16 · payload``, padded to four bytes. The length counts the
frame's header too, so it is never zero, and it is written last, with one native store: a frame whose writer died has length
zero and does not exist. The CRC covers the payload and the four bytes before it, and is mixed with the segment's generation,
so that frames of an earlier use of the file are never taken for new ones.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Signal(IntEnum):
    TRACES = 0
    LOGS = 1
    METRICS = 2


class Kind(IntEnum):
    PADDING = 0
    RESOURCE = 1
    SCOPE = 2
    SPAN = 3
    LOG = 4
    METRIC = 5
    MEASUREMENT = 6
    JOB_CHANGE = 7
    OUTCOME = 8


class Priority(IntEnum):
    LOW = 0
    INFO = 1
    NORMAL = 2
    HIGH = 3


class Reason(IntEnum):
    """Why a frame was dropped."""

    PRESSURE = 0  # the spool is filling up and the frame's priority is too low
    FULL = 1  # the spool has reached its bound
    STORAGE = 2  # no segment could be made (disk full, no file descriptors)
    SIZE = 3  # larger than a segment
    CORRUPT = 4  # its checksum does not fit
    UNHANDLED = 5  # nobody takes frames of its kind, or the handler failed
    CLOSED = 6  # after shutdown
    ERROR = 7  # a failure of ours
    AGE = 8  # its process is gone for longer than such things are kept


#: Rows of cursors and counters: one per signal, and one for the frames that are handed to handlers.
ROWS: Final = 4
HANDOVER: Final = 3
ROW_OF_KIND: Final = {
    Kind.SPAN: int(Signal.TRACES),
    Kind.LOG: int(Signal.LOGS),
    Kind.METRIC: int(Signal.METRICS),
    Kind.MEASUREMENT: HANDOVER,
    Kind.JOB_CHANGE: HANDOVER,
    Kind.OUTCOME: HANDOVER,
}
#: The scope number of frames that have no scope.
NO_SCOPE: Final = 0xFFFF

FRAME_HEADER: Final = 12
#: A checkpoint every so many bytes: the courier is woken, the pressure looked at.
STRIDE: Final = 256 * 1024
#: At the end of a child's segment, so much is left for what became of it: its parent can tell the rest.
END_BYTES: Final = 4096
HEADER_BYTES: Final = 4096
MAGIC: Final = int.from_bytes(b"chegou\x00\x02", "little")

# The header page as native 64-bit words.
W_MAGIC: Final = 0
W_SIZE: Final = 1
W_GENERATION: Final = 2
W_PID: Final = 3
W_STARTED: Final = 4
W_SERVICE: Final = 5
W_POSITION: Final = 6
W_MORE: Final = 7  # the writer has further segments of its own
W_CURSOR: Final = 8  # one per row: everything before it is done with
W_SENT: Final = 12  # one per row: everything before it may have reached the receiver already
W_CREATED: Final = 16  # one per kind
W_DELIVERED: Final = 32  # one per row
W_REJECTED: Final = 36
W_AMBIGUOUS: Final = 40
W_DROPPED: Final = 48  # twelve reasons per row
REASONS: Final = 12
W_END: Final = W_DROPPED + REASONS * ROWS
W_SHIPPER: Final = 96  # the process that will ship it and may still be busy with what came before; and its start time
W_SHIPPER_STARTED: Final = 97
W_HELD: Final = 98  # where the first frame lies that whoever adopts the segment reads again; see ``handover.Hold``
W_SETTLED: Final = 99  # the last matter begun in here that its writer saw to its end, in whichever segment that is told
W_TOUCHED: Final = 100  # when its writer was seen last, in seconds since 1970

_GOLDEN: Final = 0x9E3779B1


def seed(generation: int) -> int:
    """What the CRCs of one generation are mixed with."""
    return generation * _GOLDEN & 0xFFFFFFFF


class _Nothing:
    """Stands for a segment while there is none: every frame takes the slow path."""

    position = floor = 0
    limit = -1
    scopes: frozenset[int] = frozenset()


NOTHING: Final = _Nothing()
