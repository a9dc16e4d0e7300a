"""An execution as frames, so that somebody else can tell its end: written by the process that runs the job.

``began`` carries all that the consumer span needs, ``set`` and ``event`` what the job's code adds, and the ``OUTCOME`` frame says that
the span was told, or how it ended: then its parent, which has the span in hand, tells it. An execution that began and has no outcome,
and whose process is gone, is told by whoever drains its segment (``listener``).
"""

from __future__ import annotations

import json
import os
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _forks
from chegou_otel._guard import guarded
from chegou_otel.delivery import ledger, process
from chegou_otel.delivery.frames import W_SETTLED, Kind, Priority, Signal
from chegou_otel.signals.errors import type_name
from chegou_otel.signals.sampling import UNSAMPLED, Unsampled
from chegou_otel.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.trace import Event

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations.rq.execution import Execution


#: Bytes that an end may take.
_ROOM: Final = 4_096
#: Made once: ``json.dumps`` with options makes an encoder per call.
_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode


class Teller:
    """What the span becomes is a frame at once."""

    def __init__(self, runtime: Runtime, parent: int = 0, *, to_be_forked: bool = False) -> None:
        #: The worker whose work-horse this process is; 0 for one that runs jobs itself.
        self.parent = parent
        #: Made by that worker, for the work-horses that it will fork.
        self.forked = to_be_forked
        self._generation = _forks.generation
        self._recorder = runtime.recorder
        self._clean = runtime.encoder.clean
        #: The segments in which the execution under way was said to begin.
        self._begun: dict[str, list[Any]] = {}

    @property
    def is_ours(self) -> bool:
        """Whether it tells of this process. A child of whoever runs jobs itself has to have its own."""
        return self.forked or self._generation == _forks.generation

    def _write(self, kind: Kind, told: list[Any]) -> None:
        self._recorder.append(kind, None, _encode(told).encode(), Priority.HIGH)

    def began(self, execution: Execution) -> None:
        fixed = execution.told
        if not fixed:
            if not isinstance(execution.span, Span) or not execution.id:
                return
            execution.watch()
            fixed = self.fixed(execution, self._clean)
        varying = f"{os.getpid()},{process.moment()},{execution.start},{list(execution.used)!r}"
        if self._recorder.append(Kind.JOB_CHANGE, None, f"{fixed},{varying}]".encode(), Priority.HIGH):
            self._begun[execution.id] = [*self._begun.get(execution.id, ()), self._recorder.pool.current]

    @staticmethod
    def fixed(execution: Execution, clean: Callable[[str, Any], Any]) -> str:
        """What ``began`` says of an execution whichever process runs it, up to the last bracket."""
        span = execution.span
        if not isinstance(span, Span) or not execution.id:
            return ""
        facts = {key: clean(key, value) for key, value in span.extra.items()}
        if type(span) is Unsampled and span.kept:
            facts[UNSAMPLED] = True
        ids = [span.trace_bytes.hex(), span.span_bytes.hex(), span.parent_bytes.hex()]
        links = [(link.context.trace_id, link.context.span_id, int(link.context.trace_flags)) for link in span._link_list or ()]
        what = [execution.queue, execution.function, *ids, span.flags, execution.correlation.id, facts, links]
        return _encode(["began", execution.id, *what])[:-1]

    def leave(self, execution: Execution, outcome: str, used: Mapping[str, Any]) -> bool:
        """Leave the telling to the parent, which made the span: encoding it here would touch pages that are warm there.

        Returns:
            Whether it will. Not one that is gone, nor when the end may come to lie in another segment than the beginning.
        """
        if os.getppid() != self.parent or not execution.is_as_made():
            return False
        segment = self._recorder.pool.current
        if segment is None or self._begun.get(execution.id) != [segment] or segment.capacity - segment.position < _ROOM:
            return False
        numbers = str(used).replace("'", '"')  # which is JSON
        told = f'["{execution.id}","{outcome}",{execution.start},{time_ns()},{numbers}]'.encode()
        return self._recorder.append(Kind.OUTCOME, None, told, Priority.HIGH)

    def lost(self) -> int:
        """How many spans found no room in this process so far."""
        return ledger.dropped((self._recorder.loose, *(segment.longs for segment in self._recorder.pool.all())), Signal.TRACES)

    @guarded
    def leave_all(self, execution: Execution, outcome: str, used: Mapping[str, Any]) -> None:
        """Leave the telling to the parent because the span found no room here: it knows what was said as it went on."""
        facts = dict(used)
        if execution.error is not None:
            facts["error.type"] = type_name(execution.error)
        self._write(Kind.OUTCOME, [execution.id, outcome, execution.start, time_ns(), facts, "changed"])

    @guarded
    def named(self, execution: Execution) -> None:
        self._write(Kind.JOB_CHANGE, ["named", execution.id, execution.function, time_ns()])

    @guarded
    def changed(self, execution_id: str, key: str, value: Any) -> None:
        self._write(Kind.JOB_CHANGE, ["set", execution_id, key, self._clean(key, value), time_ns()])

    @guarded
    def happened(self, execution_id: str, event: Event) -> None:
        attributes = {key: self._clean(key, value) for key, value in (event.attributes or {}).items()}
        self._write(Kind.JOB_CHANGE, ["event", execution_id, event.name, attributes, event.timestamp])

    @guarded
    def ending(self, execution: Execution) -> None:
        """From here on the span is about to tell itself: its last changes need not be told one by one."""
        span = execution.span
        if isinstance(span, Span) and type(span.extra) is Watched:
            span.extra = dict(span.extra)
            span._event_list = list(span._event_list or ()) or None

    @guarded
    def ended(self, execution: Execution) -> None:
        if not execution.id:
            return
        self._write(Kind.OUTCOME, [execution.id])
        # That frame may lie in a later segment than the beginning, and the two may be adopted by different processes.
        for segment in self._begun.pop(execution.id, ()):
            if segment is not None and segment.fd >= 0:
                segment.longs[W_SETTLED] = matter(execution.span.span_bytes)


def matter(span_id: bytes) -> int:
    """An execution as one word of a segment's header."""
    return int.from_bytes(span_id)


class Watched(dict[str, Any]):
    """A span's attributes that tell of every change."""

    def __init__(self, start: Mapping[str, Any], execution: Execution) -> None:
        super().__init__(start)
        self._execution = execution

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._execution.changed(key, value)


class WatchedEvents(list[Any]):
    """A span's events that tell of every new one."""

    def __init__(self, start: Any, execution: Execution) -> None:
        super().__init__(start)
        self._execution = execution

    def append(self, event: Any) -> None:
        super().append(event)
        self._execution.happened(event)
