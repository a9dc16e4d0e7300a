"""One set of labels of one instrument: what is recorded on the application's threads, and folded when metrics are collected."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _guard
from chegou_otel.delivery import otlp
from chegou_otel.signals import exemplars, points
from chegou_otel.signals.exemplars import Exemplar, origin_of

if TYPE_CHECKING:
    from chegou_otel.signals.metrics import Instrument

Labels = tuple[tuple[str, "str | int | bool | float"], ...]

#: Pending values of one series before the recording thread folds them itself (nobody collects: no courier, no fork hook).
_MAX_PENDING: Final = 4_096


class Series:
    """``record`` for histograms and gauges, ``add`` for counters."""

    __slots__ = (
        "_always", "_exemplary", "_pending", "_seen", "block", "bounds", "buckets", "count", "high", "instrument", "labels", "low", "told",
        "total",
    )  # fmt: skip

    def __init__(self, instrument: Instrument, labels: Labels) -> None:
        self.instrument = instrument
        self.labels = labels
        tag = otlp.HISTOGRAM_POINT if instrument.kind == "histogram" else otlp.NUMBER_POINT
        self.block = b"".join(otlp.attribute(tag, key, value) for key, value in labels)
        #: What a measurement says before its value when it crosses to the parent.
        self.told = json.dumps(["own", *instrument.definition, labels], separators=(",", ":"))[:-1].encode() + b","
        self._pending: deque[float] = deque()
        filtered = instrument.registry.aggregation.exemplars
        self._exemplary, self._always = filtered != "always_off", filtered == "always_on"
        self.bounds = instrument.boundaries
        #: By bucket, since the last collection.
        self._seen: dict[int, Exemplar] = {}
        self.restart()

    def reset(self) -> None:
        """Forget everything: it is another process's."""
        self._pending.clear()
        self._seen = {}
        self.restart()

    def restart(self) -> None:
        """Begin with nothing: what was folded is told. Under the registry's lock."""
        self.count = 0
        self.total: float = 0
        self.low = self.high = 0.0
        self.buckets = [0] * (len(self.bounds) + 1)

    def record(self, value: float, span: Any = None) -> None:
        """Take ``value``. With the ``span`` under which it was measured, when that is at hand, it may become an exemplar."""
        cross = self.instrument.registry.cross
        if cross is not None:
            cross(self, value, span)
            return
        self.take(value, span)

    def take(self, value: float, span: Any = None) -> None:
        self._pending.append(value)
        if (span is not None or self._always) and self._exemplary and bisect_left(self.bounds, value) not in self._seen:
            self._see(value, span)
        if len(self._pending) > _MAX_PENDING:
            with self.instrument.registry.lock:
                self.fold()

    add = record

    def _see(self, value: float, span: Any) -> None:
        try:  # no decorator: for spans that are not sampled, this runs with every measurement
            origin = origin_of(span, self._always)
        except Exception as error:
            _guard.pass_foreign(error)
            _guard.report("chegou_otel.signals.series", error)
            return
        if origin is not None:
            self._seen[bisect_left(self.bounds, value)] = Exemplar(value, origin)

    def say(self, value: float, span: Any = None) -> bytes:
        """A measurement that another process takes (``Registry.replay``)."""
        origin = origin_of(span, self._always) if (span is not None or self._always) and self._exemplary else None
        return self.told + json.dumps(value).encode() + (b"]" if origin is None else b"," + origin.told() + b"]")

    def fold(self) -> None:
        """Take the pending values into the totals. Under the registry's lock."""
        pending, kind = self._pending, self.instrument.kind
        bounds, buckets = self.bounds, self.buckets
        while pending:
            value = pending.popleft()
            if kind == "gauge":
                self.total = value
            else:
                self.total += value
            if kind == "histogram":
                buckets[bisect_left(bounds, value)] += 1
                self.low = value if self.count == 0 or value < self.low else self.low
                self.high = value if self.count == 0 or value > self.high else self.high
            self.count += 1

    def point(self, start: int, now: int) -> bytes:
        """The data point of what was folded, with the exemplars since the last one. Under the registry's lock."""
        seen: dict[int, Exemplar] = {}
        if self._seen:
            seen, self._seen = self._seen, seen
        found = tuple(seen.values())
        if self.instrument.kind != "histogram":
            return points.number(self.block, start, now, self.total, exemplars.encode(exemplars.NUMBER, found))
        return points.histogram_point(
            self.block, start, now, self.count, self.total, self.low, self.high, self.buckets, self.instrument.bounds_field,
            exemplars.encode(exemplars.HISTOGRAM, found),
        )  # fmt: skip
