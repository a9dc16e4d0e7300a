"""From a worker to its work-horses: what each takes over of its parent, and what it leaves to the next one.

A child that was renewed like any other, or that was spawned, ``become``s the writer of the segment that was reserved for it. One that
is forked to be a work-horse ``inherit``s: that is one function which reaches into recorder and pool, on purpose. Each page that a child
touches is copied, and a call costs a handful of them: those of the function, of its code, of what it names. Done by the methods that other
children go through, it was a fifth of what telemetry adds to a job.
"""

from __future__ import annotations

import fcntl
import os
from threading import RLock
from typing import TYPE_CHECKING

from chegou_otel.delivery import ledger, process, sockets
from chegou_otel.delivery.folder import Storage
from chegou_otel.delivery.frames import (
    END_BYTES,
    HANDOVER,
    NO_SCOPE,
    NOTHING,
    STRIDE,
    W_PID,
    W_POSITION,
    W_STARTED,
)
from chegou_otel.delivery.otlp import Scope
from chegou_otel.delivery.segments import WRITER, NotOurs, Segment, in_use

if TYPE_CHECKING:
    from chegou_otel.delivery.recorder import Recorder


def inherit(recorder: Recorder, segment: Segment | None) -> None:
    """Right after the fork, in place of all renewals: write to ``segment``, and leave shipping to the parent.

    The parent's connections are closed; its segments are let be until a further one is needed.
    """
    if sockets.closed or sockets.look_ups:
        sockets.forget()  # in a worker within a work-horse the numbers are in use for something else by now
    for fd in sockets.connected:
        sockets.closed = True
        try:
            os.close(fd)
        except OSError:
            continue
    recorder._parents_courier, recorder.courier = recorder.courier, None
    recorder._lock, recorder._busy, recorder._late = RLock(), False, []
    recorder._forked = recorder._become = True
    recorder._sink = None
    recorder._segment = NOTHING
    if any(recorder.loose):
        recorder.loose = ledger.loose()
    pool = recorder.pool
    pool._left = (*pool._left, *pool.own, *pool.spare, *pool.idle, *pool.adopted)
    pool.own = pool.spare = pool.idle = pool.adopted = pool.out = ()
    pool.child, pool.shipper, pool._parents = True, os.getppid(), pool._told
    if segment is None:
        return
    try:
        fcntl.lockf(segment.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, WRITER)
    except OSError:
        return
    segment.longs[W_PID], segment.longs[W_STARTED] = os.getpid(), process.moment()
    segment.writer_elsewhere = False
    pool.own, pool.least = (segment,), segment.floor
    if not recorder.muted:
        recorder._segment = segment


def become(recorder: Recorder, found: Segment | str | None) -> None:
    """``Recorder.become``, with its lock held."""
    recorder._become = True
    recorder._sink = None
    recorder._segment = NOTHING
    pool = recorder.pool
    pool.child, pool.shipper, pool._parents = True, os.getppid(), pool._told
    _retire(recorder)
    segment = _opened(found, pool.hash) if isinstance(found, str) else found
    for other in pool.out:
        if other is not segment:
            other.close()
    pool.out = ()
    if segment is None or not segment.lock(WRITER):
        return
    in_use.add(segment.path or "")
    segment.claim(recorder.resource, END_BYTES)
    segment.limit = min(segment.capacity - END_BYTES, segment.position + STRIDE)
    if pool.storage.kind == "none":
        pool.storage = Storage("disk" if segment.path else "memory", (segment.path or "").rpartition("/")[0] or None, "")
    pool.own, pool.least = (segment,), segment.floor
    if not recorder.muted:
        recorder._segment = segment


def speak_for(recorder: Recorder, service: str, resource: bytes) -> None:
    """In a spawned child, before it becomes the writer: what it records is its parent's, whose segment it can open then."""
    if recorder.pool.service != service:
        recorder.pool.serve(service)
        recorder.pool._chosen = False
    recorder.resource = resource


def _retire(recorder: Recorder) -> None:
    """A child that recorded something before it became the writer ships by itself: no more; what it has is left to its parent."""
    courier, recorder.courier = recorder.courier, None
    if courier is not None:
        courier.stop()
    for segment in recorder.pool.own:
        segment.longs[W_POSITION] = segment.position
        recorder.pool.leave_to_parent(segment)


def _opened(path: str, service: int) -> Segment | None:
    try:
        return Segment.open(path, service)
    except NotOurs:
        return None


def learn(segment: Segment) -> None:
    """In the parent: what a child announced in ``segment`` holds for the next one, too, as far as we have read and know it ourselves."""
    reader = segment.readers[HANDOVER]
    if reader.position != segment.position or reader.resource != segment.spoken:
        segment.spoken = None
    elif len(reader.scopes) >= len(segment.scopes):
        segment.scopes = {NO_SCOPE, *(number for number, head in reader.scopes.items() if Scope.is_known(number, head))}
