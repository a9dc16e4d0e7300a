"""For your own tests: what was recorded, and whether anything leaked.

The ``telemetry`` fixture (a pytest plugin that comes with the package) yields a :class:`Recorded`::

    def test_job_joins_the_request_trace(telemetry, client):
        client.post("/orders/")

        assert telemetry.span_names() == ["INSERT orders_order", "send default", "POST /orders/"]
        assert len(telemetry.trace_ids()) == 1
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from chegou_otel.delivery.frames import Kind
from chegou_otel.testing import decode
from chegou_otel.testing.decode import Event, Exemplar, Link, Point, RecordedLog, RecordedMetric, RecordedSpan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel.delivery.otlp import Scope

__all__ = ["Event", "Exemplar", "Link", "Point", "Recorded", "RecordedLog", "RecordedMetric", "RecordedSpan", "capture"]


class Recorded:
    """Everything recorded since the fixture began or :meth:`clear` was called, in the order of recording."""

    def __init__(self) -> None:
        self._frames: list[tuple[Kind, str, bytes]] = []
        self._lock = threading.Lock()
        self.telemetry: Any = None

    def take(self, kind: Kind, scope: Scope | None, payload: bytes, *_rest: Any) -> bool:
        with self._lock:
            self._frames.append((kind, scope.name if scope is not None else "", payload))
        return True

    def clear(self) -> None:
        with self._lock:
            self._frames.clear()

    def _of(self, kind: Kind) -> list[tuple[str, bytes]]:
        with self._lock:
            return [(scope, payload) for found, scope, payload in self._frames if found is kind]

    @property
    def spans(self) -> list[RecordedSpan]:
        return [decode.span(payload, scope) for scope, payload in self._of(Kind.SPAN)]

    @property
    def logs(self) -> list[RecordedLog]:
        return [decode.log(payload, scope) for scope, payload in self._of(Kind.LOG)]

    @property
    def metrics(self) -> dict[str, RecordedMetric]:
        """The current state of every instrument that recorded something, by name."""
        from chegou_otel import _setup

        before = len(self._of(Kind.METRIC))
        _setup.collect_metrics()
        return {m.name: m for m in (decode.metric(payload, scope) for scope, payload in self._of(Kind.METRIC)[before:])}

    @property
    def jobs(self) -> list[RecordedSpan]:
        """The consumer spans: one per execution of a job."""
        return [span for span in self.spans if span.kind == "CONSUMER"]

    @property
    def bytes(self) -> bytes:
        """Everything that would leave the process, to search for what must not."""
        with self._lock:
            return b"\0".join(payload for _, _, payload in self._frames)

    def span(self, name: str) -> RecordedSpan:
        """The one span of that name.

        Raises:
            AssertionError: there is none, or more than one.
        """
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans are named {name!r}; there are {self.span_names()}")
        return found[0]

    def span_names(self) -> list[str]:
        return [span.name for span in self.spans]

    def trace_ids(self) -> set[str]:
        return {span.trace_id for span in self.spans}

    def correlation_ids(self) -> set[str | None]:
        return {span.correlation_id for span in self.spans} | {log.correlation_id for log in self.logs}

    def assert_no_leak(self, *secrets: str) -> None:
        """Fail when one of ``secrets`` is in anything recorded (spans, logs, metrics)."""
        everything = self.bytes
        leaked = [secret for secret in secrets if secret.encode() in everything]
        if leaked:
            raise AssertionError(f"recorded telemetry contains {leaked}")


@contextmanager
def capture(**settings: Any) -> Iterator[Recorded]:
    """Record into memory for the length of a block; nothing is sent. ``settings`` as for ``chegou_otel.setup()``.

    A ``setup()`` that was in force (your settings module's) lends its settings, and is in force again afterwards.
    """
    from chegou_otel import _setup

    recorded = Recorded()
    with _setup.replaced(settings, recorded.take) as telemetry:
        recorded.telemetry = telemetry
        yield recorded
