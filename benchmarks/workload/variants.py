"""What is switched on in a measured process: nothing, upstream OpenTelemetry, or chegou-otel."""

import os
import sys
import time
from typing import Any

VARIANT = os.environ["BENCH_VARIANT"]
FLUSH_MS = 30_000
_providers: list[Any] = []
times: dict[str, tuple[float, float]] = {}


def start() -> None:
    """Django, and the variant's telemetry the way its documentation says. Upstream's comes after Django's set-up, because `LOGGING`
    would take its handler away again, and before the WSGI application loads the middleware."""
    import django

    django.setup()
    if VARIANT == "upstream":
        before = _clocks()
        _import_upstream()
        between = _clocks()
        _start_upstream()
        _keep("import", before, between)
        _keep("setup", between, _clocks())
    elif VARIANT == "ours":
        from django.conf import settings

        for name, (before, after) in settings.BENCH_TIMES.items():
            _keep(name, before, after)


def flush() -> None:
    """Send everything that was recorded so far; a run that cannot is no measurement."""
    if VARIANT == "ours":
        import chegou_otel

        if not chegou_otel.setup().flush(FLUSH_MS / 1000):
            raise SystemExit("flush did not succeed")
    for provider in _providers:
        if not provider.force_flush(FLUSH_MS):
            raise SystemExit(f"flush of {provider} did not succeed")


def check() -> None:
    """Bare has no telemetry, and the others have."""
    loaded = any(name.partition(".")[0] in ("opentelemetry", "chegou_otel") for name in sys.modules)
    if loaded == (VARIANT == "bare"):
        raise SystemExit(f"{VARIANT}: telemetry loaded is {loaded}")


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _keep(name: str, before: tuple[float, float], after: tuple[float, float]) -> None:
    times[name] = after[0] - before[0], after[1] - before[1]


def _import_upstream() -> None:
    """All that `_start_upstream` uses, so that import and set-up can be told apart."""
    import opentelemetry.exporter.otlp.proto.http._log_exporter
    import opentelemetry.exporter.otlp.proto.http.metric_exporter
    import opentelemetry.exporter.otlp.proto.http.trace_exporter
    import opentelemetry.instrumentation.django
    import opentelemetry.instrumentation.logging
    import opentelemetry.instrumentation.redis
    import opentelemetry.instrumentation.requests
    import opentelemetry.instrumentation.sqlite3
    import opentelemetry.instrumentation.urllib3  # noqa: F401


def _start_upstream() -> None:
    """The SDK's own batch processors and OTLP/HTTP exporters, everything else at its default."""
    from opentelemetry import _logs, metrics, trace
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    traces = TracerProvider()
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(traces)
    logs = LoggerProvider()
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    _logs.set_logger_provider(logs)
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
    metrics.set_meter_provider(meters)
    _providers.extend([traces, logs, meters])
    for instrumentor in _instrumentors():
        instrumentor().instrument()


def _instrumentors() -> list[Any]:
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.instrumentation.logging import LoggingInstrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
    from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

    found = [DjangoInstrumentor, LoggingInstrumentor, RedisInstrumentor, RequestsInstrumentor, SQLite3Instrumentor, URLLib3Instrumentor]
    if os.environ.get("BENCH_RQ"):
        from opentelemetry_instrumentation_rq import RQInstrumentor

        found.append(RQInstrumentor)
    return found
