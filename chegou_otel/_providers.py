"""Register our providers with OpenTelemetry, once per process, and never over somebody else's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import _internal as _logs_state
from opentelemetry.metrics import _internal as _metrics_state

from chegou_otel._version import __version__
from chegou_otel.signals.aggregation import Aggregation
from chegou_otel.signals.flushing import Flushing
from chegou_otel.signals.logs import FrameProcessor, LoggerProvider
from chegou_otel.signals.meter import MeterProvider, Reader
from chegou_otel.signals.metrics import Registry
from chegou_otel.signals.tracing import State, TracerProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.sampling import Sampler

    from chegou_otel._settings import Settings
    from chegou_otel.signals.encoding import Encoder
    from chegou_otel.signals.tracing import Append


def tracer_provider(state: State, resource: Resource, sampler: Sampler, skipped: dict[str, str]) -> trace.TracerProvider:
    """Ours, made or armed again; or the one that somebody set before us, which is used and reported."""
    existing = trace._TRACER_PROVIDER
    if isinstance(existing, TracerProvider):
        existing.rearm(state, resource, sampler)
        return existing
    if existing is not None:
        skipped["traces"] = _taken("tracer", existing)
        return existing
    ours = TracerProvider(state, resource, sampler=sampler)
    trace.set_tracer_provider(ours)
    return ours


def registry(append: Append, settings: Settings) -> Registry:
    """Our own instruments."""
    return Registry(append, __version__, Aggregation.of(os.environ, settings.metrics_max_series))


def meter_provider(own: Registry, encoder: Encoder, resource: Resource, skipped: dict[str, str]) -> MeterProvider | None:
    """Ours, made or armed again; ``None`` when somebody else's is in force (our own metrics go our way all the same)."""
    existing = _metrics_state._METER_PROVIDER
    if isinstance(existing, MeterProvider):
        existing.rearm(own.append, encoder.cleaned, own.aggregation)
        return existing
    if existing is not None:
        skipped["metrics"] = _taken("meter", existing)
        return None
    ours = MeterProvider(Reader(own.append, encoder.cleaned, own.aggregation), resource)
    metrics.set_meter_provider(ours)
    return ours


def logger_provider(append: Append, encoder: Encoder, resource: Resource, skipped: dict[str, str]) -> None:
    """Ours, made or armed again; somebody else's keeps the Logs API (the bridge of the standard library is ours all the same)."""
    existing = _logs_state._LOGGER_PROVIDER
    if isinstance(existing, LoggerProvider):
        existing.processor.append = append
        existing.processor.encoder = encoder
        existing.processor.armed = True
    elif existing is not None:
        skipped["logs"] = _taken("logger", existing)
    else:
        _logs.set_logger_provider(LoggerProvider(FrameProcessor(append, encoder), resource))


def flush_by(flush: Callable[[float], bool]) -> None:
    """Whoever flushes a provider of ours flushes what the process recorded."""
    providers: tuple[object, ...] = (trace._TRACER_PROVIDER, _metrics_state._METER_PROVIDER, _logs_state._LOGGER_PROVIDER)
    for provider in providers:
        if isinstance(provider, Flushing):
            provider.flush = flush


def _taken(what: str, existing: Any) -> str:
    kind = type(existing)
    return f"a {what} provider was set before ({kind.__module__}.{kind.__qualname__}); it is used as it is"
