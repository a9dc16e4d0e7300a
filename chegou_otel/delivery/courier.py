"""The courier: one daemon thread per process that ships all signals, from all segments that are this process's to ship.

The thread imports nothing: a fork in the middle of an import would leave the child with a module lock that nobody releases.
"""

from __future__ import annotations

import _thread
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context

from chegou_otel import _guard
from chegou_otel.delivery import handover
from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.frames import HANDOVER, Signal
from chegou_otel.delivery.lanes import Lane, Outcome
from chegou_otel.delivery.news import News

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chegou_otel.delivery.recorder import Recorder

POLL_SECONDS: Final = 1.0
SCAN_SECONDS: Final = 10.0
#: While a circuit is half open, one try may not hold the other lanes up for a whole time-out.
PROBE_SECONDS: Final = 2.0
#: … except each so many: a receiver may work, and be slower than that.
PATIENT_EVERY: Final = 4
#: While somebody waits, a receiver that refused is asked again after this time, then after twice as long, …
FLUSH_PAUSE: Final = 0.1
#: What a flush that found the thread hanging takes beyond its time at most, to record what is at hand.
HASTE_SECONDS: Final = 0.2


class _Flush:
    """A caller that waits. Raw locks only: a signal handler may flush, too."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.done = _thread.allocate_lock()
        self.done.acquire()
        self.collected = self.result = False


class Courier:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._connections: dict[Any, Any] = {}
        self._lanes = [Lane(signal, recorder.endpoints.get(signal), self._connections) for signal in Signal]
        self._news = News(recorder, self._lanes)
        self._flushes: deque[_Flush] = deque()
        # A raw lock as bell: unlike threading.Event, it can be rung by a signal handler that interrupted a ringing.
        self._bell = _thread.allocate_lock()
        self._bell.acquire()
        self._stopping: bool = False
        self._end = _thread.allocate_lock()  # free once it stops: ends the pauses of a flush
        self._end.acquire()
        self._scan_at = 0.0
        self._collect_at = time.monotonic() + recorder.collect_interval
        # A raw thread: Thread.start() hands over under locks, and an alarm that strikes in there is lost. Whoever holds
        # ``_running`` is the courier, so it does no harm to start it twice.
        self._running = _thread.allocate_lock()
        self._ident = 0

    # -- called from anywhere

    def begin(self) -> bool:
        """Start the thread unless it runs; False when it is too late in the life of the interpreter."""
        if not self._running.locked():
            try:
                _thread.start_new_thread(self._main, ())
            except RuntimeError:
                return False
        return True

    def _main(self) -> None:
        if not self._running.acquire(blocking=False):
            return
        try:
            self._ident = _thread.get_ident()
            self._run()
        finally:
            self._running.release()

    def wake(self, *, scan: bool = False) -> None:
        if scan:
            self._scan_at = 0.0
        if self._bell.locked():
            with contextlib.suppress(RuntimeError):
                self._bell.release()

    def collect_soon(self) -> None:
        self._collect_at = 0.0
        self.wake()

    def flush(self, timeout: float) -> bool:
        """Send everything that was recorded before this call; True when it was delivered (or refused for good)."""
        request = _Flush(time.monotonic() + timeout)
        if self._stopping or _thread.get_ident() == self._ident:
            return False
        if not self.begin():  # its work is done here
            if self._running.acquire(blocking=False):
                try:
                    self._adopt()  # a process may end before its thread made the first round
                    self._serve(request)
                finally:
                    self._running.release()
            return request.result
        self._flushes.append(request)
        self.wake()
        request.done.acquire(timeout=max(0.0, timeout))
        if not request.collected:
            self._keep_at_hand()
        return request.result

    def _keep_at_hand(self) -> None:
        """The thread hangs, in a request or a callback: what it would have collected is recorded, and sent by whoever comes next.

        On a thread of its own, since the caller may be a signal handler over a lock. At the interpreter's end there is none of either.
        """
        done = _thread.allocate_lock()
        done.acquire()

        def run() -> None:
            try:
                self._call(self._recorder.at_hand)
            finally:
                done.release()

        try:
            _thread.start_new_thread(run, ())
            done.acquire(timeout=HASTE_SECONDS)
        except RuntimeError:
            run()

    def stop(self, timeout: float = 0.2) -> None:
        if not self._stopping:
            self._stopping = True
            self._end.release()
        self.wake()
        if _thread.get_ident() != self._ident and self._running.acquire(timeout=timeout):
            self._running.release()

    def last_words(self) -> None:
        """When everything was counted."""
        _guard.guarded(self._news.tell)(at_once=True)

    # -- the thread

    def _run(self) -> None:
        context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))
        while not self._stopping:
            self._bell.acquire(timeout=POLL_SECONDS)
            try:
                self._round()
            except Exception as error:
                # After ``stop`` the segments are closed under our feet.
                if not self._stopping:
                    _guard.report("chegou_otel.delivery.courier", error)
        for connection in self._connections.values():
            connection.close()
        while self._flushes:
            self._flushes.popleft().done.release()

    def _round(self) -> None:
        if self._stopping:
            return
        if self._recorder.is_off():
            while self._flushes:
                self._serve(self._flushes.popleft())
            return
        self._adopt()
        if time.monotonic() >= self._collect_at:
            self._collect()
        while self._flushes:
            self._serve(self._flushes.popleft())
        self._hand_over_all()
        self._ship_all()
        for connection in self._connections.values():
            connection.tend()
        self._tidy()
        self._news.tell()

    def _adopt(self) -> None:
        """Take over what processes that are gone left behind, every ``SCAN_SECONDS``."""
        now = time.monotonic()
        if now >= self._scan_at:
            self._scan_at = now + SCAN_SECONDS
            self._recorder.pool.adopt()

    def _ship_all(self) -> None:
        """A batch of each signal in turn, until nothing is left or nothing works. A flush does not wait for that."""
        active = [lane for lane in self._lanes if lane.circuit.ready()]
        while active and not self._stopping and not self._flushes:
            active = [lane for lane in active if self._ship(lane, None) is Outcome.MORE]

    def _ship(self, lane: Lane, until: float | None) -> Outcome:
        timeout = lane.endpoint.timeout if lane.endpoint else 0.0
        if lane.circuit.failures % PATIENT_EVERY:
            timeout = min(timeout, PROBE_SECONDS)
        deadline = time.monotonic() + timeout
        outcome = lane.ship(self._recorder.pool.sources(), deadline if until is None else min(deadline, until))
        self._news.note(lane, outcome)
        return outcome

    def _serve(self, request: _Flush) -> None:
        """Flush: every lane gets its share of the time, so one that hangs does not take it all. Who refuses is asked again."""
        try:
            if self._recorder.is_off():
                request.collected = True
                request.result = not any(lane.pending(self._recorder.pool.sources()) for lane in self._lanes)
                return
            self._hand_over_all()  # first: what it brings is collected with the rest
            self._collect()
            request.collected = True
            waiting, pause, result = list(self._lanes), FLUSH_PAUSE, True
            while waiting:
                left = [lane for place, lane in enumerate(waiting) if not self._flush_lane(lane, request.deadline, len(waiting) - place)]
                waiting = [lane for lane in left if self._worth_a_pause(lane, request.deadline)]
                result = result and len(waiting) == len(left)
                if waiting and (time.monotonic() + pause >= request.deadline or self._end.acquire(timeout=pause)):
                    result = False
                    break
                pause *= 2
            request.result = result and not self._stopping  # else what is held may be out of sight already
            self._tidy()
        finally:
            request.done.release()

    def _worth_a_pause(self, lane: Lane, end: float) -> bool:
        """Where nobody listens now, nobody will in a moment; and who said when to come again meant it."""
        if lane.circuit.told and lane.circuit.until >= end:
            return False
        return lane.last is None or lane.last.verdict is not Verdict.UNSENT

    def _flush_lane(self, lane: Lane, end: float, shares: int) -> bool:
        """Whether the lane has nothing left of what was recorded before the flush."""
        now = time.monotonic()
        deadline = now + (end - now) / shares
        while time.monotonic() < deadline:
            if lane.circuit.told and not lane.circuit.ready() and lane.pending(self._recorder.pool.sources()):
                return False
            outcome = self._ship(lane, deadline)
            if outcome is not Outcome.MORE:
                return outcome is not Outcome.FAILED
        return False

    def _collect(self) -> None:
        self._collect_at = time.monotonic() + self._recorder.collect_interval
        self._call(self._recorder.collectors)

    def _call(self, callables: Iterable[Callable[[], object]]) -> None:
        for call in callables:
            try:
                call()
            except Exception as error:
                _guard.report("chegou_otel.delivery.courier.collector", error)

    def _tidy(self) -> None:
        """Use shipped segments again. Never waits for the lock: it may be held by whoever waits for us."""
        recorder = self._recorder
        if not recorder._lock.acquire(blocking=False):
            return
        try:
            if not recorder._closed:
                recorder.pool.tidy(recorder.resource)
                if recorder.pool.current is not None:
                    recorder.pool.current.touch()
                recorder.pool.let_go(recorder.loose)
        finally:
            recorder._lock.release()

    def _hand_over_all(self) -> None:
        found = [segment for segment in self._recorder.pool.sources() if segment.replay or segment.readers[HANDOVER].pending()]
        for segment in found:
            handover.run(segment, self._recorder.handlers, 0.0)
        # Whose end is awaited may be gone by now.
        if found or any(segment.holds for segment in self._recorder.pool.adopted):
            self._call(self._recorder.handed_over)
