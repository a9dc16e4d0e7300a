"""The segments of a process: its own chain, spare ones, those of its children, and those it adopted."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _forks
from chegou_otel.delivery import folder, inheritance, ledger, orphans, pressure, process
from chegou_otel.delivery.folder import Storage
from chegou_otel.delivery.frames import (
    END_BYTES,
    FRAME_HEADER,
    HANDOVER,
    HEADER_BYTES,
    W_MORE,
    W_PID,
    W_POSITION,
    W_SHIPPER,
    W_SHIPPER_STARTED,
    Reason,
)
from chegou_otel.delivery.segments import SHIPPER, WRITER, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A segment of which this much was written and everything was shipped is used from its start again.
REUSE: Final = 1 << 20
#: After a failure to make a segment, how long not to try again.
RETRY_AFTER: Final = 1.0
SPARE: Final = 1
#: So many segments of others at a time, at most.
ADOPT_MAX: Final = 32


class Pool:
    #: Held by whoever adopts.
    adopting = _forks.FreeLock()

    def __init__(self, service: str, spool_dir: str | None, max_bytes: int, segment_bytes: int, *, memory: bool) -> None:
        self.serve(service)
        self.spool_dir = spool_dir
        self.size = max(segment_bytes, 16 * 1024) + 4095 & -4096
        self.maximum = max(2, max_bytes // self.size)
        self.memory = memory
        self.max_age = 0.0  # seconds that what the dead left is kept; 0: for ever
        self.storage = Storage("none", None, "nothing was recorded yet")
        #: Own segments, the oldest first; the last one is written to. Replaced, never changed: the courier looks on.
        self.own: tuple[Segment, ...] = ()
        self.spare: tuple[Segment, ...] = ()
        #: Segments for children: those that are out, and those that wait for the next child.
        self.out: tuple[Segment, ...] = ()
        self.idle: tuple[Segment, ...] = ()
        self.adopted: tuple[Segment, ...] = ()
        self.inherited = ledger.loose()  # what adopted segments had counted when they came: done by others
        #: The parent's, in a forked child that has not used a segment of its own yet.
        self._left: tuple[Segment, ...] = ()
        #: In a process that leaves shipping to its parent: how many segments that had beside ours when it was forked.
        self._parents = self._told = 0
        #: This process writes, and leaves shipping to others.
        self.child = False
        #: The pressure in the process that ships for this one.
        self.least = 0
        self.shipper = 0
        self._chosen = False
        self._reason = ""
        self._retry = 0.0

    def serve(self, service: str) -> None:
        """Segments are opened within one service."""
        self.service, self.hash = service, folder.service_hash(service)

    @property
    def current(self) -> Segment | None:
        return self.own[-1] if self.own else None

    @property
    def room(self) -> int:
        """The largest frame that an empty segment takes."""
        return self.size - HEADER_BYTES - FRAME_HEADER - 8

    def all(self) -> Iterator[Segment]:
        yield from (*self.own, *self.spare, *self.out, *self.idle, *self.adopted)

    def sources(self) -> tuple[Segment, ...]:
        """What the courier ships from, in this order."""
        return (*self.own, *self.out, *self.idle, *self.adopted)

    def _leave(self) -> None:
        """Close what the parent owned. Not right after the fork: a work-horse that needs no segment more has no time for it."""
        left, self._left = self._left, ()
        for segment in left:
            segment.close()

    # -- making

    def next(self, resource: bytes) -> Segment | None:
        """The next own segment, ready to be written to; None when the bound is reached or there is no storage."""
        segment = self._take(has_one=bool(self.own))
        if segment is None:
            return None
        if self.own:
            self.own[-1].sealed = True
            self.own[-1].shed()
        segment.claim(resource)
        if self.child:
            self.leave_to_parent(segment)
            if self.own:
                self.own[0].longs[W_MORE] = 1
        self.own = (*self.own, segment)
        return segment

    def leave_to_parent(self, segment: Segment) -> None:
        """Nobody ships in here: the parent finds it, or, when that is gone, whoever of the service comes by."""
        segment.longs[W_SHIPPER] = self.shipper
        segment.longs[W_SHIPPER_STARTED] = process.moment()
        segment.unlock(SHIPPER)

    def ring(self, resource: bytes) -> Segment | None:
        """Where nothing is ever sent: one segment, from its start again when it is full."""
        if not self.own:
            return self.next(resource)
        segment = self.own[0]
        for row, reader in enumerate(segment.readers):
            ledger.count_lost(segment.longs, row, Reason.FULL, reader.count())
        segment.rewind()
        segment.announce(resource)
        return segment

    def _take(self, *, has_one: bool) -> Segment | None:
        if self.spare:
            segment, self.spare = self.spare[0], self.spare[1:]
            return segment
        self._leave()
        if has_one and self._held() >= self.maximum:
            return None
        if self.child and self.storage.kind == "memory":
            return None  # nobody would find it
        if time.monotonic() < self._retry:
            return None
        try:
            segment = self._make()
        except OSError as error:
            self._retry = time.monotonic() + RETRY_AFTER
            kind, path = (self.storage.kind, self.storage.path) if self.own else ("none", None)
            self.storage = Storage(kind, path, error.strerror or str(error))
            return None
        if segment.path is not None:
            self.storage = Storage("disk", self.storage.path, self._reason)
        return segment

    def _make(self) -> Segment:
        if not self._chosen:
            self._choose()
        path = self.storage.path
        try:
            try:
                return Segment.create(path, self.size, self.hash)
            except FileNotFoundError:  # somebody tidied up
                self._choose()
                return Segment.create(self.storage.path, self.size, self.hash)
        except OSError as error:
            # Without any segment nothing could be sent either: memory is better than nothing.
            if path is None or self.own:
                raise
            segment = Segment.create(None, self.size, self.hash)
            self.storage = Storage("memory", None, f"{path}: {error.strerror or error}")
            # Room may be made; the next segment is tried there again.
            self._chosen = error.errno not in (errno.ENOSPC, errno.EDQUOT)
            return segment

    def _choose(self) -> None:
        path, reason = (None, "") if self.memory else folder.choose(self.service, self.spool_dir)
        self.storage = Storage("memory" if path is None else "disk", path, reason)
        self._reason = reason
        self._chosen = True

    # -- pressure

    def _held(self) -> int:
        """Segments that count against the bound: ours, and what our children made beyond those that they were given."""
        ours = os.getpid()
        further = sum(1 for each in self.adopted if each.longs[W_SHIPPER] == ours)
        return len(self.own) + len(self.out) + len(self.idle) + further + self._parents

    def _used(self) -> int:
        """Bytes of full segments and of what children wrote: all but the current segment."""
        return self.size * (max(0, len(self.own) - 1) + len(self.out)) + sum(each.position for each in self.idle)

    def floor(self) -> int:
        """Frames below this priority are not to be taken now."""
        current = self.current
        return max(self.least, pressure.floor(self._used() + (current.position if current else 0), self.maximum * self.size))

    def threshold(self, segment: Segment) -> int:
        """The position in ``segment`` at which the pressure rises next."""
        return pressure.next_rise(self._used(), self.maximum * self.size, segment.position, segment.capacity)

    # -- giving back

    def tidy(self, resource: bytes) -> None:
        """Use again what was shipped to the end. With the recorder's lock held."""
        for segment in self.own[:-1]:
            if segment.done:
                self.own = tuple(each for each in self.own if each is not segment)
                segment.rewind()
                segment.shed()
                self._keep_or_remove(segment)
        current = self.current
        if current is not None and current.position > min(REUSE, self.size // 2) and current.done:
            current.limit = 0  # the next frame is a checkpoint
            current.rewind()
            current.announce(resource)
        for segment in self.idle:
            if segment.settled and segment.done:
                segment.balance()
                segment.settled = False
            if segment.position > self.size // 4 and segment.done and segment.lock(WRITER):
                segment.rewind()
                segment.unlock(WRITER)

    def _keep_or_remove(self, segment: Segment) -> None:
        if len(self.spare) < SPARE:
            self.spare = (*self.spare, segment)
            return
        if self.own:
            ledger.move(segment.longs, self.own[-1].longs)
        segment.remove()

    # -- children

    def reserve(self, resource: bytes) -> Segment | None:
        """A segment for the next child, with all done that can be before there is one."""
        roomiest = min(self.idle, key=lambda each: each.position, default=None)
        made = None
        if roomiest is None or roomiest.size - roomiest.position <= self.size // 4:
            made = self._take(has_one=roomiest is not None)
        if made is not None:
            made.unlock(WRITER)
        # At the bound a child makes do with what is left, and counts there what it has no room for.
        segment = made or roomiest
        if segment is None:
            return None
        self.idle = tuple(each for each in self.idle if each is not segment)
        segment.settled = False
        segment.announce(resource, END_BYTES)
        segment.longs[W_POSITION] = segment.position  # from where a child goes on that opens it by its path
        segment.touch()
        segment.writer_elsewhere = True
        segment.longs[W_MORE] = 0
        segment.floor = self.floor()
        self.out = (*self.out, segment)
        self._told = self._held() - 1
        return segment

    def give_back(self, segment: Segment) -> None:
        """The child is gone: the next one goes on where its last complete frame ends."""
        if segment not in self.out:
            return
        self.out = tuple(each for each in self.out if each is not segment)
        if not segment.lock(WRITER):
            self.adopted = (*self.adopted, segment)  # somebody writes on: shipped as it grows, until that process ends
            return
        segment.settle(max(segment.position, segment.readers[HANDOVER].position))  # read up to there, so complete up to there
        inheritance.learn(segment)
        segment.longs[W_PID] = 0
        segment.unlock(WRITER)
        self.idle = (*self.idle, segment)

    def renew(self) -> None:
        """In a forked child: leave what the parent owned; keep what may have been reserved for this child."""
        self._left = (*self._left, *self.own, *self.spare, *self.idle, *self.adopted)
        self.own = self.spare = self.idle = self.adopted = ()
        self.inherited = ledger.loose()
        # Another user may have another folder.
        self._chosen = False
        self._retry = 0.0

    # -- orphans

    def adopt(self) -> int:
        """Take over what nobody ships: segments of dead processes, and of living ones that have no courier.

        One thread at a time: to close a segment that another thread has just opened would drop its locks.
        """
        with self.adopting:
            return self._adopt()

    def _adopt(self) -> int:
        self._leave()
        if not self._chosen:
            self._choose()
        if self.storage.path is None:
            return 0
        paths = folder.segments(self.storage.path)
        bound = orphans.SHARES * self.maximum * self.size - sum(each.size for each in self.adopted)
        found = orphans.surplus(paths, self.hash, bound)
        over = len(found)
        for path in paths:
            if len(self.adopted) + len(found) - over >= ADOPT_MAX:
                break
            if segment := orphans.take(path, self.hash):
                found.append(segment)
        for segment in found:
            if segment.longs[W_SHIPPER] != os.getpid():  # a child of ours counts for us
                ledger.note(segment.longs, self.inherited)
        for segment in found[:over]:
            orphans.give_up(segment, Reason.FULL)
        for segment in found[over:]:
            if orphans.is_too_old(segment, self.max_age):
                orphans.give_up(segment, Reason.AGE)
        self.adopted = (*self.adopted, *found)
        return len(found)

    def let_go(self, loose: Any) -> None:
        """Remove adopted segments that are shipped to the end and whose writer is gone; what they counted goes where a kill leaves it."""
        home = next((each.longs for each in (*self.own[-1:], *self.idle, *self.spare)), None)
        if home is None and self.out:
            return  # one of those comes back
        for segment in self.adopted:
            if not segment.settled:
                if not segment.orphaned():
                    continue
                segment.settle()
            stuck = [reader.unstick() for reader in segment.readers]
            if any(stuck) or segment.pending():
                continue
            self.adopted = tuple(each for each in self.adopted if each is not segment)
            segment.balance()
            ledger.move(segment.longs, loose if home is None else home)
            segment.remove()

    def close(self) -> Iterator[Any]:
        """Give everything up: what is held stays in its files. Yields the counters of the files that are removed."""
        mine, lent = (*self.own, *self.spare, *self.idle), (*self.out, *self.adopted)
        self.own = self.spare = self.out = self.idle = self.adopted = ()
        for segment in mine:
            segment.longs[W_POSITION] = segment.position
            segment.longs[W_PID] = 0
            if not self.child and (segment.path is None or segment.done):
                ledger.give_up(segment.longs, segment.readers)
                yield segment.longs
                segment.remove()
            else:
                segment.close()
        for segment in lent:
            segment.close()
