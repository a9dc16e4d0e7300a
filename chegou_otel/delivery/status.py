"""How delivery goes, for whoever asks: health checks, metrics, ``doctor``. Nothing in here sends or changes anything."""

from __future__ import annotations

import email.utils
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chegou_otel.delivery import folder, ledger, process
from chegou_otel.delivery.frames import HEADER_BYTES, MAGIC, W_MAGIC, W_PID, W_SERVICE, W_STARTED
from chegou_otel.delivery.segments import in_use

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chegou_otel.delivery.ledger import Account
    from chegou_otel.delivery.pool import Pool
    from chegou_otel.delivery.recorder import Recorder

#: How long a busy recorder is waited for, in seconds. After that there is no answer this time.
PATIENCE: Final = 0.1
_WORDS: Final = struct.Struct(f"={HEADER_BYTES // 8}Q")


@dataclass(frozen=True, slots=True)
class Contact:
    """How it goes with the endpoint of one signal. Times are seconds since 1970; 0 is never."""

    endpoint: str
    delivered_at: float = 0.0
    failed_at: float = 0.0
    failure: str = ""
    #: How far the receiver's clock is ahead of ours, in seconds, when it told the time.
    skew: float | None = None

    @property
    def failing(self) -> bool:
        return self.failed_at > self.delivered_at


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger of one process: what it did itself, and what it took over from others."""

    own: dict[str, Account]
    adopted: dict[str, Account]

    def held(self, signal: str) -> int:
        """What lies in this process's segments now, whoever recorded it."""
        return self.own[signal].held + self.adopted[signal].held


def books(recorder: Recorder) -> Books | None:
    """What this process counted; ``None`` while somebody else has the recorder."""
    if not recorder._lock.acquire(timeout=PATIENCE):
        return None
    try:
        inherited = list(recorder.pool.inherited)
        own = ledger.snapshot([recorder.loose, *(each.longs for each in recorder.pool.all())], inherited)
    finally:
        recorder._lock.release()
    return Books(own, ledger.snapshot([inherited]))


def contacts(recorder: Recorder) -> dict[str, Contact]:
    """By signal: where it goes, and how that goes."""
    found = {ledger.NAMES[signal]: Contact(way.shown) for signal, way in recorder.endpoints.items()}
    for lane in recorder.courier._lanes if recorder.courier is not None else ():
        if lane.endpoint is not None and lane.last is not None:
            answered = max(lane.delivered_at, lane.failed_at)
            found[ledger.NAMES[lane.signal]] = Contact(
                lane.endpoint.shown, lane.delivered_at, lane.failed_at, lane.failure, _skew(lane.last.date, answered)
            )
    return found


def _skew(date: str, answered: float) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - answered
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Left:
    """A segment in the service's folder that this process did not write."""

    path: str
    pid: int
    alive: bool
    accounts: dict[str, Account]


def left(pool: Pool) -> list[Left]:
    """The segments of other processes of the service on this host, as their headers tell."""
    # Nobody adopts meanwhile: to close a file that another thread has just opened would drop its locks.
    if not pool.adopting.acquire(timeout=PATIENCE):
        return []
    try:
        if not pool._chosen:
            pool._choose()
        path = pool.storage.path
        found = [_left(each.path or "", each.longs) for each in pool.adopted]
        return found + list(_unopened(path, pool.hash) if path else ())
    finally:
        pool.adopting.release()


def _unopened(path: str, service: int) -> Iterator[Left]:
    for each in folder.segments(path):
        header = b"" if each in in_use else _header(each)
        if len(header) == _WORDS.size:
            words = _WORDS.unpack(header)
            if words[W_MAGIC] == MAGIC and words[W_SERVICE] == service:
                yield _left(each, words)


def _left(path: str, words: Sequence[int]) -> Left:
    pid = words[W_PID]
    return Left(path, pid, process.alive(pid, words[W_STARTED]), ledger.snapshot([words]))


def _header(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        return os.read(fd, HEADER_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
