"""Other people's metrics: the SDK's meters, read by us, shipped like everything else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics._internal.measurement_consumer import SynchronousMeasurementConsumer
from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData

from chegou_otel import _forks
from chegou_otel._guard import guarded
from chegou_otel.delivery import otlp
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.signals import points

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


#: Kinds that another process can go on adding up.
_ADDED_UP: Final = ("counter", "histogram")


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
    return json.dumps(told, default=str).encode()


class Reader(MetricReader):
    """Turns what the SDK collected into frames."""

    def __init__(self, append: Callable[..., Any], clean: Callable[[Mapping[str, object]], dict[str, object]]) -> None:
        super().__init__()
        self.append = append
        self.clean = clean

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: Any) -> None:
        for resource in metrics_data.resource_metrics:
            for found in resource.scope_metrics:
                scope = otlp.Scope.of(found.scope.name, found.scope.version or "", found.scope.schema_url or "")
                for metric in found.metrics:
                    payload = points.from_sdk(metric, self.clean)
                    if payload is not None:
                        self.append(Kind.METRIC, scope, payload, Priority.HIGH)

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: Any) -> None:
        """Nothing of its own to stop: the courier asks it, and stops with the recorder."""


class Consumer(SynchronousMeasurementConsumer):
    """The SDK's consumer; in a work-horse it hands measurements over instead of adding them up."""

    crossing: Callable[..., Any] | None = None
    #: In a worker: what is added up is noted there first.
    journal: Journal | None = None
    _lock = _forks.FreeLock()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._generation = _forks.generation

    def consume_measurement(self, measurement: Measurement) -> None:
        if self.crossing is not None:
            self._cross(measurement)
            return
        self._begin_anew()
        journal = self.journal
        if journal is None:
            super().consume_measurement(measurement)
            return
        with journal.lock:
            self._note(measurement)
            super().consume_measurement(measurement)

    @guarded
    def _note(self, measurement: Measurement) -> None:
        told = _told(measurement, _ADDED_UP)
        if told is not None and self.journal is not None:
            self.journal.note(told)

    def collect(self, *args: Any, **kwargs: Any) -> Any:
        self._begin_anew()
        return super().collect(*args, **kwargs)

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
        self._generation, self.journal = _forks.generation, None
        self._reader_storages = {
            reader: MetricReaderStorage(
                self._sdk_config,
                cast("Any", reader._instrument_class_temporality),
                cast("Any", reader._instrument_class_aggregation),
                cast("Any", reader._instrument_class_cardinality_limit),
            )
            for reader in self._reader_storages
        }


class MeterProvider(sdk.MeterProvider):
    """The SDK's provider with our reader and consumer. Switched off by ``shutdown()``, on again by ``setup()``."""

    _lock = _forks.FreeLock()
    _meter_lock = _forks.FreeLock()
    _all_metric_readers_lock: Any = _forks.FreeLock()
    _handle_fork = property(_forks.nothing_to_renew)

    def __init__(self, reader: Reader, resource: Resource, views: list[Any] | None = None) -> None:
        super().__init__(metric_readers=[reader], resource=resource, shutdown_on_exit=False, views=views or [])
        self.reader = reader
        self.armed = True
        self.consumer = Consumer(sdk_config=self._sdk_config, metric_readers=[reader])
        self._measurement_consumer = self.consumer
        reader._set_collect_callback(cast("Any", self.consumer.collect))

    @guarded
    def collect(self) -> None:
        if self.armed:
            self.reader.collect()

    def cross_to_parent(self) -> None:
        self.consumer.crossing = self.reader.append

    def replay(
        self, scope: str, version: str, kind: str, name: str, unit: str, description: str, attributes: dict[str, Any], value: float
    ) -> None:
        """Record again what a work-horse measured."""
        meter = self.get_meter(scope, version or None)
        instrument = getattr(meter, f"create_{kind}")(name, unit=unit, description=description)
        getattr(instrument, _RECORD[kind])(value, attributes)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Off, not gone: a later ``setup()`` finds every meter that was handed out."""
        self.armed = False
