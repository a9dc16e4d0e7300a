"""Our own metrics: instruments with pre-bound series.

Recording is one append to a deque, which is atomic; sums and buckets are computed when metrics are collected, off the
request thread. In a work-horse a value crosses to the parent as a ``MEASUREMENT`` frame instead, so that one series per
worker counts all of its jobs.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import deque
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Literal

from chegou_otel import _forks
from chegou_otel._guard import guarded
from chegou_otel.delivery import otlp
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.signals import points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chegou_otel.delivery.journal import Journal

Labels = tuple[tuple[str, "str | int | bool | float"], ...]
InstrumentKind = Literal["histogram", "counter", "updown", "gauge"]

#: Buckets of the semantic conventions for request durations, with an edge at the 5 s of the usual alert.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
MAX_SERIES: Final = 2_000
_OVERFLOW: Final[Labels] = (("otel.metric.overflow", True),)
#: Pending values of one series before the recording thread folds them itself (nobody collects: no courier, no fork hook).
_MAX_PENDING: Final = 4_096
_SCOPE_NAME: Final = "chegou_otel"
#: Stands for every value of a label past its bound, as in the semantic conventions.
_OTHER: Final = "_OTHER"
#: What another process can go on adding up. What is so and so high now ends with its process.
_ADDED_UP: Final = ("histogram", "counter")


class Series:
    """One set of labels of one instrument. ``record`` for histograms and gauges, ``add`` for counters."""

    __slots__ = ("_pending", "block", "buckets", "count", "high", "instrument", "labels", "low", "told", "total")

    def __init__(self, instrument: Instrument, labels: Labels) -> None:
        self.instrument = instrument
        self.labels = labels
        tag = otlp.HISTOGRAM_POINT if instrument.kind == "histogram" else otlp.NUMBER_POINT
        self.block = b"".join(otlp.attribute(tag, key, value) for key, value in labels)
        #: What a measurement says before its value when it crosses to the parent.
        self.told = json.dumps(["own", *instrument.definition, labels], separators=(",", ":"))[:-1].encode() + b","
        self._pending: deque[float] = deque()
        self.reset()

    def reset(self) -> None:
        self._pending.clear()
        self.count = 0
        self.total: float = 0
        self.low = self.high = 0.0
        self.buckets = [0] * (len(self.instrument.boundaries) + 1)

    def record(self, value: float) -> None:
        cross = self.instrument.registry.cross
        if cross is not None:
            cross(self, value)
            return
        self.take(value)

    def take(self, value: float) -> None:
        self._pending.append(value)
        if len(self._pending) > _MAX_PENDING:
            with self.instrument.registry.lock:
                self.fold()

    add = record

    def fold(self) -> None:
        """Take the pending values into the totals. Under the registry's lock."""
        pending, kind = self._pending, self.instrument.kind
        bounds, buckets = self.instrument.boundaries, self.buckets
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


class Instrument:
    """A histogram, counter, up-down counter or gauge; ``series(labels)`` binds one set of labels (keep what it returns)."""

    __slots__ = ("boundaries", "bounds_field", "definition", "description", "kind", "name", "registry", "series_by_labels", "unit")

    def __init__(
        self, registry: Registry, kind: InstrumentKind, name: str, unit: str, description: str, boundaries: Sequence[float]
    ) -> None:
        self.registry = registry
        self.kind: InstrumentKind = kind
        self.name = name
        self.unit = unit
        self.description = description
        self.boundaries = tuple(boundaries)
        self.bounds_field = points.bounds_field(self.boundaries)
        self.series_by_labels: dict[Labels, Series] = {}
        self.definition = [kind, name, unit, description, list(self.boundaries)]

    def series(self, labels: Labels = ()) -> Series:
        """The series of ``labels``. Past 2,000 of them, all further ones share one overflow series; see also ``Registry.limits``."""
        known = self.series_by_labels.get(labels)
        if known is None:
            with self.registry.lock:
                labels = self.registry.bounded(labels)
                if labels not in self.series_by_labels and len(self.series_by_labels) >= MAX_SERIES:
                    labels = _OVERFLOW
                known = self.series_by_labels.setdefault(labels, Series(self, labels))
        return known

    def encode(self, start: int, now: int) -> bytes | None:
        """The ``Metric`` message of everything recorded so far; ``None`` when nothing was."""
        encoded = []
        for series in list(self.series_by_labels.values()):
            series.fold()
            if series.count:
                encoded.append(self._point(series, start, now))
        if not encoded:
            return None
        return points.metric(self.name, self.unit, self.description, self._data(encoded))

    def _point(self, series: Series, start: int, now: int) -> bytes:
        if self.kind != "histogram":
            return points.number(series.block, start, now, series.total)
        return points.histogram_point(
            series.block, start, now, series.count, series.total, series.low, series.high, series.buckets, self.bounds_field
        )

    def _data(self, encoded: list[bytes]) -> bytes:
        if self.kind == "histogram":
            return points.histogram_of(encoded)
        if self.kind == "gauge":
            return points.gauge_of(encoded)
        return points.sum_of(encoded, monotonic=self.kind == "counter")


class Registry:
    """All of a process's own instruments."""

    lock = _forks.FreeLock()

    def __init__(self, append: Callable[..., Any], version: str = "") -> None:
        self.append = append
        self.scope = otlp.Scope.of(_SCOPE_NAME, version)
        self.start = time_ns()
        self.instruments: dict[str, Instrument] = {}
        #: How many values a label may have, over all instruments; further ones are ``_OTHER``.
        self.limits: dict[str, int] = {}
        self._values: dict[str, set[object]] = {}
        #: Where a measurement goes instead of into the totals: to the parent, or, right after a fork, over the parent's totals.
        self.cross: Callable[[Series, float], None] | None = None
        self.journal: Any = None
        #: What is measured together, by the word that it is told under.
        self.groups: dict[str, Callable[..., Iterable[tuple[Series, float]]]] = {}
        self._begin_anew = self._first

    def _instrument(self, kind: InstrumentKind, name: str, unit: str, description: str, boundaries: Sequence[float] = ()) -> Instrument:
        with self.lock:
            known = self.instruments.get(name)
            if known is None:
                known = self.instruments[name] = Instrument(self, kind, name, unit, description, boundaries)
            return known

    def bounded(self, labels: Labels) -> Labels:
        """``labels`` with values that are within their bounds. Under the lock."""
        return tuple((key, self._within(key, value)) if key in self.limits else (key, value) for key, value in labels)

    def _within(self, key: str, value: str | float) -> str | float:
        known = self._values.setdefault(key, set())
        if value not in known:
            if len(known) >= self.limits[key]:
                return _OTHER
            known.add(value)
        return value

    def histogram(self, name: str, unit: str = "s", description: str = "", boundaries: Sequence[float] = SECONDS) -> Instrument:
        return self._instrument("histogram", name, unit, description, boundaries)

    def counter(self, name: str, unit: str = "1", description: str = "") -> Instrument:
        return self._instrument("counter", name, unit, description)

    def updown(self, name: str, unit: str = "1", description: str = "") -> Instrument:
        return self._instrument("updown", name, unit, description)

    def gauge(self, name: str, unit: str = "1", description: str = "") -> Instrument:
        return self._instrument("gauge", name, unit, description)

    @guarded
    def collect(self) -> None:
        """Append one ``METRIC`` frame per instrument that has anything to say."""
        now = time_ns()
        self._forget()
        with self.lock:
            encoded = [instrument.encode(self.start, now) for instrument in self.instruments.values()]
        for payload in encoded:
            if payload is not None:
                self.append(Kind.METRIC, self.scope, payload, Priority.HIGH)

    def after_fork(self) -> None:
        """In a forked child: nothing of the parent's is counted again. Totals go with first use: a work-horse adds nothing up."""
        self.cross = self._begin_anew

    def _first(self, series: Series, value: float) -> None:
        self._forget()
        series.record(value)

    def _forget(self) -> None:
        with self.lock:
            if self.cross is not self._begin_anew:
                return
            self.start = time_ns()
            for instrument in self.instruments.values():
                for series in instrument.series_by_labels.values():
                    series.reset()
            self.cross = None

    def keep(self, journal: Journal) -> None:
        """In a worker: what is added up is noted first."""
        self._forget()
        self.journal = journal
        self.cross = self._note

    def _note(self, series: Series, value: float) -> None:
        with self.journal.lock:
            if series.instrument.kind in _ADDED_UP:
                self.journal.note(_told(series, value))
            series.take(value)

    def cross_to_parent(self) -> None:
        """In a work-horse: measurements leave as frames and are aggregated by the parent."""
        self.cross = self._cross

    @guarded
    def _cross(self, series: Series, value: float) -> None:
        self.append(Kind.MEASUREMENT, None, _told(series, value), Priority.HIGH)

    def together(self, source: str, *told: Any) -> None:
        """Record what ``groups[source](*told)`` yields. Where it crosses to the parent, or is noted, that is one frame for all of it."""
        cross = self.cross
        if cross == self._cross:
            self.tell_parent(source, *told)
            return
        group = self.groups[source](*told)
        if cross != self._note:
            for series, value in group:
                series.record(value)
            return
        with self.journal.lock:
            self.journal.note(_encode([source, *told]).encode())
            for series, value in group:
                series.take(value)

    @guarded
    def tell_parent(self, *told: Any) -> None:
        """In a work-horse: what its parent is to take note of."""
        self.append(Kind.MEASUREMENT, None, _encode(told).encode(), Priority.HIGH)

    def replay(
        self, kind: InstrumentKind, name: str, unit: str, description: str, boundaries: list[float], labels: Any, value: float
    ) -> None:
        """Take a measurement that came over from a work-horse."""
        instrument = self._instrument(kind, name, unit, description, boundaries)
        instrument.series(tuple((key, item) for key, item in labels)).record(value)


#: Made once: ``json.dumps`` with options makes an encoder per call.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def _told(series: Series, value: float) -> bytes:
    return series.told + json.dumps(value).encode() + b"]"
