"""An execution as frames, so that somebody else can tell its end: written by a work-horse, read by its parent or an adopter.

``began`` carries all that the consumer span needs, ``set`` and ``event`` what the job's code adds, and the ``OUTCOME`` frame says that
the span was told. An execution that began and has no outcome, and whose process is gone, vanished: whoever drains its segment tells.
"""

from __future__ import annotations

import base64
import json
import os
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from chegou_otel._guard import guarded
from chegou_otel.correlation import Correlation
from chegou_otel.delivery import process
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.integrations.rq.execution import FAILED
from chegou_otel.signals.encoding import Safe
from chegou_otel.signals.spans import _UNSET, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.trace import Event

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.execution import Execution, Executions


class Teller:
    """In a work-horse: what the span becomes is a frame at once."""

    def __init__(self, runtime: Runtime) -> None:
        self._append = runtime.recorder.append
        self._clean = runtime.encoder.clean
        self._started = process.started()

    def _write(self, kind: Kind, told: list[Any]) -> None:
        self._append(kind, None, json.dumps(told, default=str, separators=(",", ":")).encode(), Priority.HIGH)

    @guarded
    def began(self, execution: Execution) -> None:
        span = execution.span
        if type(span) is not Span or not execution.id:
            return
        facts = {key: self._clean(key, value) for key, value in span.extra.items()}
        span.extra = Watched(span.extra, lambda key, value: self.changed(execution.id, key, value))
        span._event_list = WatchedEvents(span._event_list or (), lambda event: self.happened(execution.id, event))
        ids = [base64.b64encode(each).decode() for each in (span.trace_bytes, span.span_bytes, span.parent_bytes)]
        who = [os.getpid(), self._started, execution.queue, execution.function]
        what = [span.flags, execution.start, execution.correlation.id, facts]
        self._write(Kind.JOB_CHANGE, ["began", execution.id, *who, *ids, *what])

    @guarded
    def changed(self, execution_id: str, key: str, value: Any) -> None:
        self._write(Kind.JOB_CHANGE, ["set", execution_id, key, self._clean(key, value)])

    @guarded
    def happened(self, execution_id: str, event: Event) -> None:
        attributes = {key: self._clean(key, value) for key, value in (event.attributes or {}).items()}
        self._write(Kind.JOB_CHANGE, ["event", execution_id, event.name, attributes, event.timestamp])

    @guarded
    def ended(self, execution: Execution) -> None:
        self._write(Kind.OUTCOME, [execution.id])


class Watched(dict[str, Any]):
    """A span's attributes that tell of every change."""

    def __init__(self, start: Mapping[str, Any], tell: Callable[[str, Any], Any]) -> None:
        super().__init__(start)
        self._tell = tell

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._tell(key, value)


class WatchedEvents(list[Any]):
    """A span's events that tell of every new one."""

    def __init__(self, start: Any, tell: Callable[[Event], Any]) -> None:
        super().__init__(start)
        self._tell = tell

    def append(self, event: Any) -> None:
        super().append(event)
        self._tell(event)


class Listener:
    """In a worker's parent or any other process of the service: executions that began elsewhere and have not ended."""

    def __init__(self, runtime: Runtime, executions: Executions) -> None:
        self._executions = executions
        self._open: dict[str, dict[str, Any]] = {}
        self._told: set[str] = set()
        #: The execution that this process's own work-horse is at; its parent settles it, not the sweep.
        self.monitored: str | None = None
        runtime.recorder.handlers[Kind.JOB_CHANGE] = self.change
        runtime.recorder.handlers[Kind.OUTCOME] = self.outcome
        runtime.recorder.collectors.append(self.sweep)
        runtime.recorder.handed_over.append(self.sweep)

    def change(self, payload: bytes) -> None:
        what, execution_id, *rest = json.loads(payload)
        if what == "began":
            names = ("pid", "started", "queue", "function", "trace", "span", "parent", "flags", "start", "correlation", "facts")
            before = self._open.get(execution_id, {})
            self._open[execution_id] = {"events": [], **before, **dict(zip(names, rest, strict=True))}
        elif execution_id in self._open and what == "set":
            self._open[execution_id]["facts"][rest[0]] = rest[1]
        elif execution_id in self._open:
            self._open[execution_id]["events"].append(rest)

    def outcome(self, payload: bytes) -> None:
        execution_id = json.loads(payload)[0]
        self._open.pop(execution_id, None)
        if execution_id == self.monitored:
            self._told.add(execution_id)

    def settle(self, execution_id: str) -> dict[str, Any] | None:
        """After the work-horse is gone and drained: what is known of an execution that nobody told; ``None`` when it was told."""
        self.monitored = None
        if execution_id in self._told:
            self._told.discard(execution_id)
            return None
        return self._open.pop(execution_id, {})

    @guarded
    def sweep(self) -> None:
        """Tell what began in processes that are gone, parent and work-horse alike."""
        for execution_id, known in list(self._open.items()):
            if execution_id != self.monitored and not process.alive(known["pid"], known["started"]):
                self._open.pop(execution_id, None)
                self.tell(known, "vanished", {})

    def tell(self, known: Mapping[str, Any], outcome: str, more: Mapping[str, Any]) -> None:
        """The consumer span of an execution that could not tell its own end."""
        executions = self._executions
        static = executions.static(known["queue"], known["function"])
        # In a context of its own: the courier's, in which the sweep runs, suppresses what is recorded by the way.
        span: Any = executions.tracer.begin(static, None, known["start"], context=Context())
        if type(span) is not Span:
            return
        span.trace_bytes, span.span_bytes, span.parent_bytes = (base64.b64decode(known[key]) for key in ("trace", "span", "parent"))
        span.flags = known["flags"]
        span._parent_context = span._lazy_context = span._trace_state = None
        span.correlation = Correlation(known["correlation"], "job")
        span.extra = {**{key: _safe(value) for key, value in known["facts"].items()}, **more, "rq.job.status": Safe(outcome)}
        for name, attributes, timestamp in known["events"]:
            span.add_event(name, {key: _safe(value) for key, value in attributes.items()}, timestamp)
        span._status = _UNSET
        span.set_status(Status(StatusCode.ERROR, FAILED[outcome]))
        executions.count(known["queue"], known["function"], outcome, (time_ns() - known["start"]) / 1e9)
        span.end()


def _safe(value: Any) -> Any:
    """Text that was redacted before it was written."""
    return Safe(value) if isinstance(value, str) else value
