"""Other people's metrics: the SDK's meters, read by us, shipped like everything else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import trace
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics._internal.measurement_consumer import SynchronousMeasurementConsumer
from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from chegou_otel import _forks
from chegou_otel._guard import guarded, logger
from chegou_otel.delivery import otlp
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.signals import points
from chegou_otel.signals.aggregation import ADDED_UP, Aggregation, overflow_warning
from chegou_otel.signals.exemplars import Origin, origin_of
from chegou_otel.signals.flushing import Flushing
from chegou_otel.signals.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from opentelemetry.sdk.metrics._internal.measurement import Measurement
    from opentelemetry.sdk.resources import Resource

    from chegou_otel.delivery.journal import Journal

#: SDK instrument class → how it is recorded again in the parent.
_KINDS: Final = {
    "_Counter": "counter", "_UpDownCounter": "up_down_counter", "_Histogram": "histogram", "_Gauge": "gauge",
}  # fmt: skip
_RECORD: Final = {"counter": "add", "up_down_counter": "add", "histogram": "record", "gauge": "set"}


#: Temporality preference → what tells only what is new.
_DELTA: Final[dict[str, tuple[type, ...]]] = {
    "cumulative": (),
    "delta": (sdk.Counter, sdk.Histogram, sdk.ObservableCounter),
    "lowmemory": (sdk.Counter, sdk.Histogram),
}
_INSTRUMENTS: Final = (
    sdk.Counter, sdk.UpDownCounter, sdk.Histogram, sdk._Gauge, sdk.ObservableCounter, sdk.ObservableUpDownCounter, sdk.ObservableGauge,
)  # fmt: skip
_FILTERS: Final[dict[str, Callable[[], sdk.ExemplarFilter]]] = {
    "trace_based": sdk.TraceBasedExemplarFilter, "always_on": sdk.AlwaysOnExemplarFilter, "always_off": sdk.AlwaysOffExemplarFilter,
}  # fmt: skip
_OVERFLOW: Final = "otel.metric.overflow"


def _told(measurement: Measurement, kinds: Container[str]) -> bytes | None:
    """What another process records again (``MeterProvider.replay``); ``None`` for kinds that it cannot."""
    instrument: Any = measurement.instrument
    kind = _KINDS.get(type(instrument).__name__, "")
    if kind not in kinds:
        return None
    scope = instrument.instrumentation_scope
    told = [
        "sdk", scope.name, scope.version or "", kind, instrument.name, instrument.unit, instrument.description,
        dict(measurement.attributes or {}), measurement.value,
    ]  # fmt: skip
    span = trace.get_current_span(measurement.context)
    origin = None if span is trace.INVALID_SPAN else origin_of(span)
    end = b"]" if origin is None else b"," + origin.told() + b"]"
    return json.dumps(told, default=str).encode()[:-1] + end


class Reader(MetricReader):
    """Turns what the SDK collected into frames."""

    def __init__(
        self, append: Callable[..., Any], clean: Callable[[Mapping[str, object]], dict[str, object]], aggregation: Aggregation
    ) -> None:
        self.append = append
        self.clean = clean
        self.outbox = Outbox()
        self.configure(aggregation)

    def configure(self, aggregation: Aggregation) -> None:
        self.aggregation = aggregation
        #: Names of metrics that a warning was given about.
        self._warned: set[str] = set()
        collect = getattr(self, "_collect", None)
        exponential = aggregation.histogram == "base2_exponential_bucket_histogram"
        super().__init__(
            preferred_temporality=dict.fromkeys(_DELTA[aggregation.temporality], AggregationTemporality.DELTA),
            preferred_aggregation={sdk.Histogram: ExponentialBucketHistogramAggregation()} if exponential else None,
            cardinality_limits=dict.fromkeys(_INSTRUMENTS, aggregation.max_series),
        )
        self._collect = collect

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: Any) -> None:
        for resource in metrics_data.resource_metrics:
            for found in resource.scope_metrics:
                scope = otlp.Scope.of(found.scope.name, found.scope.version or "", found.scope.schema_url or "")
                for metric in found.metrics:
                    self._put(scope, metric)

    def _put(self, scope: otlp.Scope, metric: Any) -> None:
        payload = points.from_sdk(metric, self.clean)
        if payload is None:
            return
        once = getattr(metric.data, "aggregation_temporality", None) is AggregationTemporality.DELTA
        self.outbox.put(scope, payload, once=once)
        if len(metric.data.data_points) > self.aggregation.max_series and metric.name not in self._warned:
            self._warned.add(metric.name)
            told = [tuple(p.attributes.items()) for p in metric.data.data_points if _OVERFLOW not in p.attributes]
            logger.warning("%s", overflow_warning(metric.name, len(told), told))

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """For whoever asks the SDK's provider: recorded, to be sent with everything else."""
        self.collect(timeout_millis=timeout_millis)
        self.outbox.send(self.append)
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: Any) -> None:
        """Nothing of its own to stop: the courier asks it, and stops with the recorder."""


class Consumer(SynchronousMeasurementConsumer):
    """The SDK's consumer; in a work-horse it hands measurements over instead of adding them up."""

    crossing: Callable[..., Any] | None = None
    #: Knows where to.
    reader: Reader
    #: In a worker: what is added up is noted there first.
    journal: Journal | None = None
    _lock = _forks.FreeLock()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._generation = _forks.generation

    def consume_measurement(self, measurement: Measurement) -> None:
        self._begin_anew()
        if self.crossing is not None:
            self._cross(measurement)
            return
        journal = self.journal
        if journal is None:
            super().consume_measurement(measurement)
            return
        with journal.lock:
            self._note(measurement)
            super().consume_measurement(measurement)

    @guarded
    def _note(self, measurement: Measurement) -> None:
        told = _told(measurement, ADDED_UP)
        if told is not None and self.journal is not None:
            self.journal.note(told)

    def collect(self, *args: Any, **kwargs: Any) -> Any:
        self._begin_anew()
        return super().collect(*args, **kwargs)

    def added_up(self, reader: MetricReader) -> MetricsData | None:
        """What can be told without a callback."""
        self._begin_anew()
        return self._reader_storages[reader].collect()

    @guarded
    def _cross(self, measurement: Measurement) -> None:
        told = _told(measurement, _RECORD)
        if told is not None and self.crossing is not None:
            self.crossing(Kind.MEASUREMENT, None, told, Priority.HIGH)

    def keep(self, journal: Journal) -> None:
        """In a worker: what is added up is noted first."""
        self._begin_anew()
        self.journal = journal

    def _begin_anew(self) -> None:
        """In a forked child: no total is the parent's. They go with first use: a work-horse adds nothing up."""
        if self._generation == _forks.generation:
            return
        if self.journal is not None and _forks.inherited:
            self.crossing = self.reader.append  # a work-horse whose worker notes what it adds up looks with its first use
        self._generation, self.journal = _forks.generation, None
        for reader in self._reader_storages:
            cast("Reader", reader).outbox.clear()
        self.start_over()

    def start_over(self) -> None:
        """With nothing added up, in the ways that the readers now prefer."""
        self._reader_storages = {
            reader: MetricReaderStorage(
                self._sdk_config,
                cast("Any", reader._instrument_class_temporality),
                cast("Any", reader._instrument_class_aggregation),
                cast("Any", reader._instrument_class_cardinality_limit),
            )
            for reader in self._reader_storages
        }


class MeterProvider(Flushing, sdk.MeterProvider):
    """The SDK's provider with our reader and consumer. Switched off by ``shutdown()``, on again by ``setup()``."""

    _lock = _forks.FreeLock()
    _meter_lock = _forks.FreeLock()
    _all_metric_readers_lock: Any = _forks.FreeLock()

    def __init__(self, reader: Reader, resource: Resource, views: list[Any] | None = None) -> None:
        with _forks.unhooked("opentelemetry."):
            super().__init__(
                metric_readers=[reader], resource=resource, exemplar_filter=_FILTERS[reader.aggregation.exemplars](),
                shutdown_on_exit=False, views=views or [],
            )  # fmt: skip
        self.reader = reader
        self.armed = True
        self.consumer = Consumer(sdk_config=self._sdk_config, metric_readers=[reader])
        self.consumer.reader = reader
        self._measurement_consumer = self.consumer
        reader._set_collect_callback(cast("Any", self.consumer.collect))

    def rearm(
        self, append: Callable[..., Any], clean: Callable[[Mapping[str, object]], dict[str, object]], aggregation: Aggregation
    ) -> None:
        self.reader.append, self.reader.clean = append, clean
        self.add_up()
        self.armed = True
        if aggregation != self.reader.aggregation:
            self.reader.configure(aggregation)
            self._sdk_config.exemplar_filter = _FILTERS[aggregation.exemplars]()
            self.consumer.start_over()

    @guarded
    def gather(self, *, ask: bool = True) -> None:
        """Take what the SDK added up and, with ``ask``, what users' callbacks observe."""
        if self.armed and ask:
            with _forks.calm():
                self.reader.collect()
        elif self.armed:
            found = self.consumer.added_up(self.reader)
            if found is not None:
                self.reader._receive_metrics(found)

    @guarded
    def send(self) -> None:
        """Append what was gathered."""
        if self.armed:
            self.reader.outbox.send(self.reader.append)

    def cross_to_parent(self) -> None:
        self.consumer.crossing = self.reader.append

    def add_up(self) -> None:
        """In a process that ships what it records, whatever it was before: nobody else would."""
        self.consumer.crossing = self.consumer.journal = None

    def replay(
        self, scope: str, version: str, kind: str, name: str, unit: str, description: str, attributes: dict[str, Any], value: float,
        origin: tuple[str, str, int] | None = None,
    ) -> None:  # fmt: skip
        """Record again what a work-horse measured, under the span under which it was measured."""
        meter = self.get_meter(scope, version or None)
        instrument = getattr(meter, f"create_{kind}")(name, unit=unit, description=description)
        context = None if origin is None else trace.set_span_in_context(Origin.heard(*origin).span())
        getattr(instrument, _RECORD[kind])(value, attributes, context)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Off, not gone: a later ``setup()`` finds every meter that was handed out."""
        self.armed = False
