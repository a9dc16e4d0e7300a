"""OpenTelemetry's own instrumentation packages, for those who want them: ``setup(django="upstream", redis="upstream")``.

Found already active, they are honoured: ours stays out and says so. Their documented settings and hooks keep their meaning. They
come with the extra ``upstream``.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chegou_otel._guard import logger

if TYPE_CHECKING:
    from chegou_otel._runtime import Runtime


class Upstream(NamedTuple):
    """A row: the module, its instrumentor, the distribution that has it."""

    module: str
    instrumentor: str
    distribution: str


TABLE: Final[dict[str, Upstream]] = {
    "django": Upstream("opentelemetry.instrumentation.django", "DjangoInstrumentor", "opentelemetry-instrumentation-django"),
    "redis": Upstream("opentelemetry.instrumentation.redis", "RedisInstrumentor", "opentelemetry-instrumentation-redis"),
}


def is_active(name: str) -> bool:
    """Whether somebody switched on upstream's instrumentation of ``name``. Imports nothing."""
    row = TABLE[name]
    module = sys.modules.get(row.module)
    instrumentor = getattr(module, row.instrumentor, None)
    return instrumentor is not None and bool(getattr(instrumentor(), "_is_instrumented_by_opentelemetry", False))


def reason(mode: str, name: str) -> str | None:
    """Why our instrumentation of ``name`` stays out, or ``None``: what was asked for, and what is found active."""
    if mode == "off":
        return f"{name}='off'"
    if mode == "upstream":
        return f"{name}='upstream': {TABLE[name].distribution} does it"
    return f"{TABLE[name].distribution} is active, and stays" if is_active(name) else None


def take_over(runtime: Runtime, name: str) -> str | None:
    """Switch upstream's instrumentation on when it was asked for; why ours stays out, or ``None``.

    Django's has to wait for this until settings are there: earlier, it configures empty ones.
    """
    mode = getattr(runtime.settings, name)
    if mode == "upstream" and not is_active(name):
        missing = _instrument(runtime, name)
        if missing is not None:
            return missing
    return reason(mode, name)


def _instrument(runtime: Runtime, name: str) -> str | None:
    row = TABLE[name]
    # Read once per process, by the first instrumentor: the stable conventions, unless somebody chose.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    try:
        instrumentor: Any = getattr(importlib.import_module(row.module), row.instrumentor)()
    except ImportError:
        missing = f"{name}='upstream' needs {row.distribution}: pip install 'chegou-otel[upstream]'"
        logger.warning("%s", missing)
        return missing
    instrumentor.instrument(tracer_provider=runtime.tracer_provider, meter_provider=runtime.meter_provider)
    runtime.on_shutdown.append(instrumentor.uninstrument)
    return None
