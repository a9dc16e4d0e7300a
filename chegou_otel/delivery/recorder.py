"""The recorder: takes frames from any thread, never waits, never raises, and outlives its process by what it wrote.

Three things make it safe. The lock is re-entrant, because a signal handler may record while a frame is being written. The
stretch in ``append`` that reserves room calls nothing, so no handler runs inside it; what a handler raises later is repaired
by ``Segment.repair`` and goes on its way. A forked child starts over with nothing: it closes what it inherited and makes its
own segment with its first frame.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
import zlib
from typing import TYPE_CHECKING, Any

from chegou_otel import _forks, _guard
from chegou_otel.delivery import handover, inheritance, ledger, process, segments, sockets
from chegou_otel.delivery.courier import Courier
from chegou_otel.delivery.folder import Storage
from chegou_otel.delivery.frames import END_BYTES, FRAME_HEADER, NO_SCOPE, NOTHING, STRIDE, W_MORE, Kind, Priority, Reason
from chegou_otel.delivery.origin import ours
from chegou_otel.delivery.pool import Pool
from chegou_otel.delivery.protocols import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chegou_otel.delivery.endpoints import Endpoint
    from chegou_otel.delivery.frames import Signal
    from chegou_otel.delivery.otlp import Scope
    from chegou_otel.delivery.segments import Segment

    Sink = Callable[[Kind, Scope | None, bytes], object]

#: No WeakSet: to iterate over one touches four times as many pages, and each is copied in a forked child.
_recorders: list[weakref.ref[Recorder]] = []
_hooked = False


def _renew_all() -> None:
    segments.in_use.clear()
    sockets.forget()
    for known in _recorders:
        if (recorder := known()) is not None:
            recorder._renew()


class Recorder:
    """One per process. See ``ARCHITECTURE.md`` for the contract and ``docs/delivery.md`` for the behaviour.

    Args:
        resource: the encoded Resource message.
        service: names the folder; segments of dead processes are adopted within one service.
        endpoints: where each signal goes. ``None`` or empty: nothing is sent, frames go round in a small ring in memory.
        spool_dir: where segments lie; one folder per service is made in it.
        max_bytes: bound of everything this process holds.
        segment_bytes: size of one segment.
        memory: never touch a disk.
        deliver: False sends nothing, as if there were no endpoints.
        sink: takes every frame instead (tests).
    """

    def __init__(
        self,
        resource: bytes,
        *,
        service: str = "unknown_service",
        endpoints: Mapping[Signal, Endpoint] | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        max_bytes: int = 64 << 20,
        segment_bytes: int = 4 << 20,
        memory: bool = False,
        deliver: bool = True,
        sink: Sink | None = None,
    ) -> None:
        global _hooked
        #: A handler may return a ``handover.Hold`` to keep its frame for whoever adopts the segment next.
        self.handlers: dict[Kind, Callable[[bytes], object]] = {}
        #: Append what is aggregated (metrics) as frames, every ``collect_interval`` seconds and with ``flush`` and ``shutdown``.
        self.collectors: list[Callable[[], object]] = []
        self.at_hand: list[Callable[[], object]] = []  # the same without waiting, when a flush finds the courier hanging
        self.collect_interval = 60.0
        #: Called when handlers were given something: what follows from it is recorded at once, before this process may die, too.
        self.handed_over: list[Callable[[], object]] = []
        self.endpoints = dict(endpoints or {}) if deliver else {}
        #: Whether it was said that delivery fails. A child does not say again what its parent said.
        self.down = False
        self.is_off: Callable[[], bool] = lambda: False  # asked in each round: whether telemetry is switched off
        self.muted = False
        self.pool = Pool(
            service,
            os.fspath(spool_dir) if spool_dir else None,
            max_bytes,
            segment_bytes,
            memory=memory or sink is not None or not self.endpoints,
        )
        prepare(self.endpoints.values())
        process.moment()  # once where it is cheap
        self.courier: Courier | None = None
        #: In a forked child. To take it apart would touch many pages, and each is copied.
        self._parents_courier: Courier | None = None
        self.loose = ledger.loose()  # counters of what happened while there was no segment
        self._resource = resource
        #: What a forked child that ships by itself says it is; a work-horse speaks for its parent.
        self.child_resource: Callable[[], bytes] | None = None
        self._sink = sink
        self._forked = self._closed = self._become = False
        self._start()
        _recorders[:] = [known for known in _recorders if known() is not None] + [weakref.ref(self)]
        if not _hooked:
            _forks.in_child(_renew_all)
            _hooked = True

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._segment: Any = NOTHING
        #: In the slow path; what a signal handler records meanwhile waits in ``_late``.
        self._busy = False
        self._late: list[tuple[Kind, Scope | None, bytes, Priority]] = []

    # -- the hot path

    def append(self, kind: Kind, scope: Scope | None, payload: bytes, priority: Priority = Priority.NORMAL) -> bool:
        """Record a frame; False when it was dropped (and counted)."""
        try:
            number = NO_SCOPE if scope is None else scope.number
            meta = kind | priority << 8 | number << 16
            size = len(payload) + FRAME_HEADER
            crc = zlib.crc32(payload, meta)
            with self._lock:
                segment = self._segment
                # Nothing is called from here on to ``position = end``: no signal handler runs in between.
                start = segment.position
                end = start + size + 3 & -4
                if end > segment.limit or priority < segment.floor or number not in segment.scopes:
                    return self._slow(kind, scope, payload, priority)
                words = segment.words
                words[end >> 2] = 0
                segment.position = end
                try:
                    index = start >> 2
                    words[index + 1] = crc ^ segment.seed
                    words[index + 2] = meta
                    segment.memory[start + FRAME_HEADER : start + size] = payload
                    words[index] = size
                    segment.created[kind] += 1
                except BaseException:
                    segment.repair(start, end)
                    raise
                return True
        except RecursionError:
            # The application is at its limit: whatever we call now would raise again.
            return False
        except Exception as error:
            if not ours(error):
                raise
            self._failed(kind, error)
            return False

    # -- what happens now and then

    def _slow(self, kind: Kind, scope: Scope | None, payload: bytes, priority: Priority) -> bool:
        """First frame, checkpoint, new scope, full segment, pressure. With the lock held."""
        if self._sink is not None:
            self._sink(kind, scope, payload)
        if self._sink is not None or self.muted:
            return True
        if self._busy:
            self._late.append((kind, scope, payload, priority))
            return True
        self._busy = True
        try:
            reason = self._place(kind, scope, payload, priority)
        finally:
            self._busy = False
        while self._late:
            self.append(*self._late.pop(0))
        if reason is not None:
            ledger.count_drop(self._counters(), kind, reason)
        return reason is None

    def _place(self, kind: Kind, scope: Scope | None, payload: bytes, priority: Priority) -> Reason | None:
        if self._closed:
            return Reason.CLOSED
        if self.courier is None and not self._become and self.is_off():
            return None  # the first of a process, in which nobody has looked yet
        pool = self.pool
        segment = pool.current
        room = len(payload) + FRAME_HEADER + 4
        head = b"" if scope is None else scope.head()
        if scope is not None and segment is not None and scope.number in segment.scopes:
            head = b""
        kept = END_BYTES if self._become and kind != Kind.OUTCOME else 0
        if segment is None or segment.position + room + len(head) + FRAME_HEADER + 4 > segment.capacity - kept:
            if self._forked and not self._become and self.child_resource is not None:
                self._forked, self._resource = False, self.child_resource()
            if room + len(head) + len(self._resource) + 256 > pool.room:
                return Reason.SIZE
            fresh = pool.next(self._resource) if self.endpoints or self._become else pool.ring(self._resource)
            if fresh is None:
                return Reason.FULL if pool.current is not None else Reason.STORAGE
            segment = fresh
            head = b"" if scope is None else scope.head()
        self._checkpoint(segment)
        if priority < segment.floor:
            return Reason.PRESSURE
        number = NO_SCOPE if scope is None else scope.number
        if head and segment.write(Kind.SCOPE, number, head):
            segment.scopes.add(number)
        return None if segment.write(kind, number, payload, priority) else Reason.FULL

    def _checkpoint(self, segment: Segment) -> None:
        """Look at the pressure; go on without a look for another stride."""
        segment.floor = self.pool.floor()
        capacity = segment.capacity - END_BYTES if self._become else segment.capacity
        segment.limit = min(capacity, segment.position + STRIDE, self.pool.threshold(segment))
        if self._segment is not segment:
            self._segment = segment
            ledger.move(self.loose, segment.longs)
        if self.endpoints and not self._become:
            self._wake()

    def mute(self, muted: bool) -> None:
        """From now on nothing is recorded, nor counted as lost: somebody wants it so. What is held stays."""
        with self._lock:
            self.muted = muted
            self._segment = NOTHING

    def start(self) -> None:
        """Start the courier now, not with the first frame: for a process that has metrics only."""
        if self.endpoints and not self._become and not self._closed and self._sink is None and self.courier is None:
            with self._lock:
                self._wake()

    def _wake(self) -> None:
        if self.courier is None:
            self.courier = Courier(self)
        self.courier.begin()
        self.courier.wake()

    def _counters(self) -> Any:
        segment = self.pool.current
        return self.loose if segment is None else segment.longs

    def _failed(self, kind: Kind, error: Exception) -> None:
        with contextlib.suppress(Exception):
            ledger.count_drop(self.loose, kind, Reason.ERROR)
        _guard.report("chegou_otel.delivery.recorder.append", error)

    # -- forks

    @property
    def leaves_shipping(self) -> bool:
        """Whether a child does: when its parent leaves it to others, and those can find what it writes."""
        return self._become and self.pool.storage.kind == "disk"

    def _renew(self) -> None:
        """In a forked child: nothing of the parent's is ours, except a segment that was reserved for us."""
        self._parents_courier, self.courier = self.courier, None
        self._become = self.leaves_shipping
        self._forked = True
        self.pool.renew()
        if any(self.loose):
            self.loose = ledger.loose()
        self._start()

    def reserve(self) -> Segment | None:
        """A segment for a child to be forked; None when there is none to be had. ``drain`` gives it back."""
        with self._lock:
            segment = None if self._closed else self.pool.reserve(self._resource)
            if segment is not None:
                segment.limit = min(segment.capacity - END_BYTES, segment.position + STRIDE)
            return segment

    def become(self, segment: Segment | str | None) -> None:
        """In the child: write to ``segment`` (or the one at that path), and leave shipping to the parent."""
        with self._lock:
            inheritance.become(self, segment)

    def drain(self, segment: Segment | None, timeout: float = 1.0) -> bool:
        """In the parent, after the child is gone: run the handlers to the end; the rest is shipped as usual.

        Returns:
            Whether the handlers saw everything. The courier goes on with what they did not.
        """
        if segment is None:
            return True
        if self._sink is not None:
            handover.to_sink(segment, self._sink)
        self.start()
        complete = handover.run(segment, self.handlers, timeout)
        if segment.longs[W_MORE]:
            # The child filled it and went on in segments of its own; what it told last lies there.
            self.pool.adopt()
            for further in self.pool.adopted:
                complete = handover.run(further, self.handlers, timeout) and complete
        with self._lock:
            self.pool.give_back(segment)
            courier = self.courier
        if courier is not None and segment.longs[W_MORE]:
            courier.wake(scan=True)  # else it comes by soon enough: a request per job would cost more than the job's telemetry
        return complete

    # -- the rest of the contract

    @property
    def resource(self) -> bytes:
        return self._resource

    @resource.setter
    def resource(self, block: bytes) -> None:
        with self._lock:
            self._resource = block
            if self.pool.current is not None:
                self.pool.current.announce(block)

    @property
    def storage(self) -> Storage:
        """Where frames go, and what was not possible."""
        return Storage("sink", None, "") if self._sink is not None else self.pool.storage

    def ledger(self) -> dict[str, ledger.Account]:
        """What became of everything recorded, by signal."""
        return ledger.snapshot([self.loose, *(each.longs for each in self.pool.all())])

    def flush(self, timeout: float) -> bool:
        """Send what is held, for at most ``timeout`` seconds; False when something is still held."""
        if self._sink is not None or self._become:
            return True
        if self.collectors:
            self.start()
        return True if self.courier is None else self.courier.flush(timeout)

    def shutdown(self, timeout: float) -> bool:
        """Flush, stop, and leave what could not be sent to the next process of the service."""
        if self._closed:
            return True
        done = self.flush(timeout)
        if self.courier is not None:
            self.courier.stop()
        with self._lock:
            self._closed = True
            self._segment = NOTHING
            for account in self.pool.close():
                ledger.move(account, self.loose)
        if self.courier is not None:
            self.courier.last_words()
        return done
