"""Executions that began in other processes, and the telling of those that could not tell their own end.

In a worker's parent and in any other process of the service. What is open here is held in its segment, too (``handover.Hold``): when
this process dies before the end is known, the next one goes on.
"""

from __future__ import annotations

import json
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import _forks
from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation
from chegou_otel.delivery import process
from chegou_otel.delivery.frames import Kind
from chegou_otel.delivery.handover import Hold
from chegou_otel.integrations.rq import untold
from chegou_otel.integrations.rq.outcomes import FAILED
from chegou_otel.integrations.rq.teller import matter
from chegou_otel.signals.encoding import Safe
from chegou_otel.signals.sampling import UNSAMPLED
from chegou_otel.signals.spans import _UNSET, Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.executions import Executions

#: So long a sweep rests after Redis took all of its time and did not answer: it runs on the courier, which has other work.
_REST: Final = 5.0
_BEGAN: Final = (
    "queue", "function", "trace", "span", "parent", "flags", "correlation", "facts", "links", "pid", "started", "start", "used",
)  # fmt: skip


class Listener:
    """Reads what others wrote."""

    def __init__(self, runtime: Runtime, executions: Executions) -> None:
        self._executions = executions
        self._generation = _forks.generation
        self._open: dict[str, dict[str, Any]] = {}
        self._told: set[str] = set()
        self._rests_until = 0.0
        #: The execution that this process's own work-horse is at; its parent settles it, not the sweep.
        self.monitored: str | None = None
        #: How the frame about its beginning begins.
        self._expected = b"?"
        runtime.recorder.handlers[Kind.JOB_CHANGE] = self.change
        runtime.recorder.handlers[Kind.OUTCOME] = self.outcome
        runtime.recorder.collectors.append(self.sweep)
        runtime.recorder.handed_over.append(self.sweep)

    def _begin_anew(self) -> None:
        """In a forked child, with the first use: what its parent has open is its parent's to tell, which goes on reading how it ends."""
        if self._generation != _forks.generation:
            self._generation, self._open, self._told = _forks.generation, {}, set()

    def watch(self, execution_id: str | None) -> None:
        """Whoever forks a work-horse settles what that is at."""
        self.monitored = execution_id
        self._told.clear()  # of what nobody settled
        self._expected = f'["began","{execution_id}",'.encode()

    def change(self, payload: bytes) -> Hold | None:
        self._begin_anew()
        if payload.startswith(self._expected) and self.monitored is not None and self.monitored not in self._open:
            # Read when it is needed, which mostly it is not: its parent made what it says.
            self._open[self.monitored] = {**_fresh(self.monitored), "unread": payload}
            return cast("Hold", self._open[self.monitored]["hold"])
        what, execution_id, *rest = json.loads(payload)
        known = self._open.get(execution_id)
        if what == "began":
            fresh = known or _fresh(execution_id)
            self._open[execution_id] = {**fresh, **dict(zip(_BEGAN, rest, strict=True))}
            return None if known else fresh["hold"]
        if known is None:
            return None
        _read(known)
        if what == "named":
            known["function"] = rest[0]
        elif what == "set":
            known["facts"][rest[0]] = rest[1]
        else:
            known["events"].append(rest[:3])
        known["last"] = rest[-1]
        return None

    def outcome(self, payload: bytes) -> None:
        self._begin_anew()
        execution_id, *ended = json.loads(payload)
        if ended:
            if execution_id == self.monitored or execution_id in self._open:
                self._open.setdefault(execution_id, _fresh(execution_id))["ended"] = ended
            return
        known = self._open.pop(execution_id, None)
        if known is not None:
            known["hold"].release()
        if execution_id == self.monitored:
            self._told.add(execution_id)

    def settle(self, execution_id: str) -> dict[str, Any] | None:
        """After the work-horse is gone and drained: what is known of an execution that nobody told; ``None`` when it was told.

        With ``ended`` in it (outcome, start, end, what was used) its end is known, too. Whoever is given it releases its ``hold``.
        """
        self._begin_anew()
        known = self._open.pop(execution_id, {})  # before the sweep may take it
        told = execution_id in self._told
        self.watch(None)
        if told:
            return None
        if known and "ended" not in known and _settled(known):
            known["hold"].release()
            return None
        return known

    @guarded
    def sweep(self) -> None:
        """Tell what began in processes that are gone, parent and work-horse alike."""
        self._begin_anew()
        if monotonic() < self._rests_until:
            return
        claims = self._executions.claims
        claims.hang = False
        for execution_id, known in list(self._open.items()):
            if claims.hang:
                self._rests_until = monotonic() + _REST
                return
            if execution_id == self.monitored:
                continue
            if not said(known):  # its beginning found no room; whoever ran it knows more, or nobody
                self._open.pop(execution_id, None)
                continue
            _read(known)
            if "ended" not in known and process.alive(known["pid"], known["started"]):
                continue
            if self._open.pop(execution_id, None) is None:
                continue
            if "ended" in known:
                self.tell_left(known)
                continue
            if _settled(known):
                known["hold"].release()
                continue
            job_id = str(known["facts"].get("messaging.message.id", ""))
            ending = claims.ending(job_id, execution_id)
            if ending is None:
                self.tell(known, "vanished", {}, end=0)
            else:
                self.tell(known, ending.outcome, ending.facts, end=ending.time)

    def keep(self, known: dict[str, Any]) -> None:
        """Telemetry is off: the sweep tells once it is on again, or whoever comes next."""
        self._open[known["id"]] = known

    def tell_left(self, known: dict[str, Any]) -> None:
        """The end that its work-horse left to be told, by somebody who did not make the span."""
        if self._executions.runtime.recorder.muted:
            self.keep(known)
            return
        outcome, _start, end, used, *_changed = known["ended"]
        self.tell(known, outcome, used, end=end)

    def tell(self, known: dict[str, Any], outcome: str, more: Mapping[str, Any], *, end: int | None = None, where: Any = None) -> None:
        """The consumer span of an execution that could not tell its own end, unless somebody told it before.

        ``end``: when it ended; ``None`` is now, and 0 unknown: then the span ends with the last that was heard of it, and counts no
        duration. ``where``: its Redis.
        """
        _read(known)
        try:
            if self._executions.claims.take(known["id"], outcome, where, words=True):
                self._tell(known, outcome, more, end)
        finally:
            known["hold"].release()

    def _tell(self, known: Mapping[str, Any], outcome: str, more: Mapping[str, Any], end: int | None) -> None:
        executions = self._executions
        seconds = None if end == 0 else (max(known["start"], end or time_ns()) - known["start"]) / 1e9
        trace, own, parent = (bytes.fromhex(known[key]) for key in ("trace", "span", "parent"))
        if not known["flags"] & TraceFlags.SAMPLED and UNSAMPLED not in known["facts"]:
            executions.count(known["queue"], known["function"], outcome, seconds, more)
            if outcome in FAILED:
                facts = untold.facts_of(known["queue"], known["function"], outcome, known["facts"], more)
                untold.tell(trace, own, Correlation(known["correlation"], "job"), outcome, FAILED[outcome], facts)
            return
        static = executions.static(known["queue"], known["function"])
        # In a context of its own: the courier's, in which the sweep runs, suppresses what is recorded by the way. The sampler was asked
        # when the execution began, and follows.
        begun = NonRecordingSpan(SpanContext(int.from_bytes(trace), int.from_bytes(own), False, TraceFlags(TraceFlags.SAMPLED)))
        span: Any = executions.tracer.begin(static, None, known["start"], context=Context({_SPAN_KEY: begun}))
        if not isinstance(span, Span):
            executions.count(known["queue"], known["function"], outcome, seconds, more)
            return
        span.trace_bytes, span.span_bytes, span.parent_bytes = trace, own, parent
        span.flags = known["flags"]
        span._parent_context = span._lazy_context = span._trace_state = None
        span._link_list = [Link(SpanContext(trace, own, True, TraceFlags(flags))) for trace, own, flags in known["links"]] or None
        span.correlation = Correlation(known["correlation"], "job")
        span.extra = {**{key: _safe(value) for key, value in known["facts"].items()}, **more, "rq.job.status": Safe(outcome)}
        for name, attributes, timestamp in known["events"]:
            span.add_event(name, {key: _safe(value) for key, value in attributes.items()}, timestamp)
        span._status = _UNSET
        if outcome in FAILED:
            span.set_status(Status(StatusCode.ERROR, FAILED[outcome]))
        executions.count(known["queue"], known["function"], outcome, seconds, more, span=span)
        span.end(max(known["start"], known["last"] if end == 0 else end or time_ns()))


def said(known: dict[str, Any]) -> bool:
    """Whether what an execution is was said, not only how it ended."""
    return "queue" in known or "unread" in known


def _fresh(execution_id: str) -> dict[str, Any]:
    return {"id": execution_id, "events": [], "last": 0, "hold": Hold()}


def _read(known: dict[str, Any]) -> None:
    """Take in what was said of its beginning, unless that was done."""
    unread = known.get("unread")
    if unread is not None:  # the courier and the worker's own thread may: both read the same
        known.update(zip(_BEGAN, json.loads(unread)[2:], strict=True))
        known.pop("unread", None)


def _settled(known: dict[str, Any]) -> bool:
    """Whether the work-horse told its end, though the frame about it went elsewhere."""
    _read(known)
    return bool(known["hold"].settled_by_writer(matter(bytes.fromhex(known["span"]))))


def _safe(value: Any) -> Any:
    """Text that was redacted before it was written."""
    return Safe(value) if isinstance(value, str) else value
