"""Measurements that this process has added up and not yet written as metrics, in a segment of their own.

A worker adds up for minutes what a kill would take along. So each measurement is noted here first, and what was noted is cleared
when the totals are written. Whoever adopts the segment of a process that died in between finds measurements in it, as in any
work-horse's, and adds them to its own.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from chegou_otel import _forks
from chegou_otel._guard import guarded
from chegou_otel.delivery import process
from chegou_otel.delivery.frames import HEADER_BYTES, NO_SCOPE, W_PID, W_STARTED, Kind, Priority
from chegou_otel.delivery.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel.delivery.recorder import Recorder

#: Enough for some thousands of measurements; when it is full, the totals are written ahead of time.
BYTES: Final = 512 * 1024


class Journal:
    """One per process. It notes nothing before ``keep``, and nothing where there is no folder that others look into."""

    #: Held while something is noted and added up, and while totals are written: a measurement is in one of them.
    lock = _forks.FreeLock()

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._generation = -1
        self._own: Segment | None = None
        #: Whether what is being added up lies here already.
        self._noted = False

    @property
    def kept(self) -> bool:
        """Whether this process notes what it adds up; a forked child of one that does does not."""
        return self._generation == _forks.generation

    @property
    def _segment(self) -> Segment | None:
        return self._own if self.kept else None

    @guarded
    def keep(self) -> None:
        """From now on. Not in a process that leaves adding up to its parent."""
        recorder = self._recorder
        if self.kept or not recorder.endpoints or recorder._become:
            return
        self._generation, self._own = _forks.generation, None
        pool = recorder.pool
        if not pool._chosen:
            pool._choose()
        if pool.storage.path is None:
            return
        segment = Segment.create(pool.storage.path, BYTES, pool.hash)
        segment.longs[W_PID] = os.getpid()
        segment.longs[W_STARTED] = process.moment()
        self._own = segment

    @contextmanager
    def taking(self, payload: bytes) -> Iterator[None]:
        """While a measurement is added up that came as a frame. It is noted first of all: that it came is forgotten elsewhere by now."""
        if not self.kept:
            yield
            return
        with self.lock:
            self.note(payload)
            self._noted = True
            try:
                yield
            finally:
                self._noted = False

    @guarded
    def note(self, payload: bytes) -> None:
        """With the lock held, before it is added up."""
        segment = self._segment
        if segment is not None and not self._noted and not segment.write(Kind.MEASUREMENT, NO_SCOPE, payload, Priority.HIGH):
            courier = self._recorder.courier
            if courier is not None:
                courier.collect_soon()

    @contextmanager
    def settling(self, timeout: float = -1) -> Iterator[bool]:
        """While totals are written; what was noted is in them then. ``False``: not within ``timeout`` seconds, they stay here."""
        if not self.kept:
            yield True
            return
        if not self.lock.acquire(timeout=timeout):
            yield False
            return
        try:
            yield True
            self._clear()
        finally:
            self.lock.release()

    @guarded
    def _clear(self) -> None:
        segment = self._segment
        if segment is None:
            return
        segment.touch()
        if segment.position > HEADER_BYTES:
            segment.rewind()
            segment.created[Kind.MEASUREMENT] = 0

    @guarded
    def close(self) -> None:
        """At the end. What no total holds stays for the next process."""
        with self.lock:
            segment, self._own, self._generation = self._segment, None, -1
            if segment is None:
                return
            segment.longs[W_PID] = 0
            if segment.position > HEADER_BYTES:
                segment.close()
            else:
                segment.remove()
