"""Our own metrics: instruments with pre-bound series.

Recording is one append to a deque, which is atomic; sums and buckets are computed when metrics are collected, off the
request thread. In a work-horse a value crosses to the parent as a ``MEASUREMENT`` frame instead, so that one series per
worker counts all of its jobs.
"""

from __future__ import annotations

import json
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Literal

from chegou_otel import _forks
from chegou_otel._guard import guarded, logger
from chegou_otel.delivery import otlp
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.signals import points
from chegou_otel.signals.aggregation import ADDED_UP, Aggregation, overflow_warning
from chegou_otel.signals.exemplars import Origin, origin_of
from chegou_otel.signals.outbox import Outbox
from chegou_otel.signals.series import Labels, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chegou_otel.delivery.journal import Journal

__all__ = ["SECONDS", "Instrument", "Labels", "Registry", "Series"]

InstrumentKind = Literal["histogram", "counter", "updown", "gauge"]

#: Buckets of the semantic conventions for request durations, with an edge at the 5 s of the usual alert.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_OVERFLOW: Final[Labels] = (("otel.metric.overflow", True),)
_SCOPE_NAME: Final = "chegou_otel"
#: Stands for every value of a label past its bound, as in the semantic conventions.
_OTHER: Final = "_OTHER"
_DEFAULT: Final = Aggregation()


class Instrument:
    """A histogram, counter, up-down counter or gauge; ``series(labels)`` binds one set of labels (keep what it returns)."""

    __slots__ = (
        "_overflown", "boundaries", "bounds_field", "definition", "delta", "description", "kind", "name", "registry", "series_by_labels",
        "unit",
    )  # fmt: skip

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
        self.delta = registry.aggregation.delta and kind in ADDED_UP
        self._overflown = False

    def series(self, labels: Labels = ()) -> Series:
        """The series of ``labels``. Past ``max_series`` of them, further ones share one overflow series; see also ``Registry.limits``."""
        return self.series_by_labels.get(labels) or self._bind(labels)

    def _bind(self, labels: Labels) -> Series:
        overflows = False
        with self.registry.lock:
            labels = self.registry.bounded(labels)
            if labels not in self.series_by_labels and len(self.series_by_labels) >= self.registry.aggregation.max_series:
                labels = _OVERFLOW
                overflows, self._overflown = not self._overflown, True
            known = self.series_by_labels.setdefault(labels, Series(self, labels))
            told = [labels for labels in self.series_by_labels if labels != _OVERFLOW] if overflows else []
        if overflows:
            logger.warning("%s", overflow_warning(self.name, len(told), told))
        return known

    def encode(self, now: int) -> bytes | None:
        """The ``Metric`` message of everything recorded so far, or since the last collection; ``None`` when nothing was."""
        start = self.registry.since if self.delta else self.registry.start
        encoded = []
        for series in list(self.series_by_labels.values()):
            series.fold()
            if series.count:
                encoded.append(series.point(start, now))
                if self.delta:
                    series.restart()
        if not encoded:
            return None
        return points.metric(self.name, self.unit, self.description, self._data(encoded))

    def _data(self, encoded: list[bytes]) -> bytes:
        temporality = points.DELTA if self.delta else points.CUMULATIVE
        if self.kind == "histogram":
            return points.histogram_of(encoded, temporality)
        if self.kind == "gauge":
            return points.gauge_of(encoded)
        return points.sum_of(encoded, monotonic=self.kind == "counter", temporality=temporality)


class Registry:
    """All of a process's own instruments."""

    lock = _forks.FreeLock()

    def __init__(self, append: Callable[..., Any], version: str = "", aggregation: Aggregation = _DEFAULT) -> None:
        self.append = append
        self.aggregation = aggregation
        self.scope = otlp.Scope.of(_SCOPE_NAME, version)
        self.start = time_ns()
        #: When was collected last, or begun.
        self.since = self.start
        self._outbox = Outbox()
        self.instruments: dict[str, Instrument] = {}
        #: How many values a label may have, over all instruments; further ones are ``_OTHER``.
        self.limits: dict[str, int] = {}
        self._values: dict[str, set[object]] = {}
        #: Where a measurement goes instead of into the totals: to the parent, or, right after a fork, over the parent's totals.
        self.cross: Callable[[Series, float, Any], None] | None = None
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
    def gather(self) -> None:
        """Make one ``METRIC`` frame per instrument that has anything to say."""
        self._forget()
        with self.lock:
            now = time_ns()
            self.since = min(self.since, now)  # the clock may have been set back
            encoded = [(instrument.encode(now), instrument.delta) for instrument in self.instruments.values()]
            self.since = now
        for payload, once in encoded:
            if payload is not None:
                self._outbox.put(self.scope, payload, once=once)

    @guarded
    def send(self) -> None:
        """Append what was gathered. Without the lock: a signal handler may record while this process is inside of ``append``."""
        self._outbox.send(self.append)

    def collect(self) -> None:
        self.gather()
        self.send()

    def after_fork(self) -> None:
        """In a forked child: nothing of the parent's is counted again. Totals go with first use: a work-horse adds nothing up."""
        self.cross = self._begin_anew

    def _first(self, series: Series, value: float, span: Any) -> None:
        self._forget()
        series.record(value, span)

    def _forget(self) -> None:
        with self.lock:
            if self.cross is not self._begin_anew:
                return
            self.start = self.since = time_ns()
            for instrument in self.instruments.values():
                for series in instrument.series_by_labels.values():
                    series.reset()
            self._outbox.clear()
            self.cross = None

    def keep(self, journal: Journal) -> None:
        """In a worker: what is added up is noted first."""
        self._forget()
        self.journal = journal
        self.cross = self._note

    def _note(self, series: Series, value: float, span: Any) -> None:
        if self._crosses():
            self._cross(series, value, span)
            return
        with self.journal.lock:
            if series.instrument.kind in ADDED_UP:
                self.journal.note(series.say(value, span))
            series.take(value, span)

    def cross_to_parent(self) -> None:
        """In a work-horse: measurements leave as frames and are aggregated by the parent."""
        self.cross = self._cross

    def _crosses(self) -> bool:
        """Whether they do; a work-horse whose worker notes what it adds up looks with its first."""
        if self.cross == self._note and not self.journal.kept:
            self.cross = self._cross
        return self.cross == self._cross

    @guarded
    def _cross(self, series: Series, value: float, span: Any) -> None:
        self.append(Kind.MEASUREMENT, None, series.say(value, span), Priority.HIGH)

    def together(self, span: Any, source: str, *told: Any) -> None:
        """Record what ``groups[source](*told)`` yields. In a work-horse that is one frame for all of it, in a worker one note."""
        if self._crosses():
            self.tell_parent(source, *told, self._origin(span))
            return
        if self.cross == self._note:
            with self.journal.taking(_encode((source, *told, self._origin(span))).encode()):
                for series, value in self.groups[source](*told):
                    series.take(value, span)
            return
        for series, value in self.groups[source](*told):
            series.record(value, span)

    def _origin(self, span: Any) -> tuple[str, str, int] | None:
        wanted = self.aggregation.exemplars
        found = None if wanted == "always_off" else origin_of(span, wanted == "always_on")
        return found and (found.trace_bytes.hex(), found.span_bytes.hex(), found.time)

    def replay_together(self, source: str, *told: Any) -> None:
        """Take measurements that came over as one frame; they are noted."""
        self._forget()
        if self._crosses():  # a worker within a work-horse
            self.tell_parent(source, *told)
            return
        *values, origin = told
        span = None if origin is None else Origin.heard(*origin)
        for series, value in self.groups[source](*values):
            series.take(value, span)

    def teach(self, *told: Any) -> None:
        """In a work-horse: what its parent is to know, from which the next one is forked."""
        if self._crosses():
            self.tell_parent(*told)

    @guarded
    def tell_parent(self, *told: Any) -> None:
        """In a work-horse: what its parent is to take note of."""
        self.append(Kind.MEASUREMENT, None, _encode(told).encode(), Priority.HIGH)

    def replay(
        self, kind: InstrumentKind, name: str, unit: str, description: str, boundaries: list[float], labels: Any, value: float,
        origin: tuple[str, str, int] | None = None,
    ) -> None:  # fmt: skip
        """Take a measurement that came over from a work-horse."""
        instrument = self._instrument(kind, name, unit, description, boundaries)
        span = None if origin is None else Origin.heard(*origin)
        instrument.series(tuple((key, item) for key, item in labels)).record(value, span)


#: Made once: ``json.dumps`` with options makes an encoder per call.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
