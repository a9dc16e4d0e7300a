"""One call, one story: traces, correlation IDs, metrics and logs for Django and RQ.

``chegou_otel.setup()`` wires everything that it finds. Importing this package does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chegou_otel._version import __version__

if TYPE_CHECKING:
    from chegou_otel._setup import Telemetry, setup, shutdown
    from chegou_otel.correlation import get_correlation_id, use_correlation_id

__all__ = ["Telemetry", "__version__", "get_correlation_id", "setup", "shutdown", "use_correlation_id"]

_HOMES = {
    "Telemetry": "chegou_otel._setup",
    "setup": "chegou_otel._setup",
    "shutdown": "chegou_otel._setup",
    "get_correlation_id": "chegou_otel.correlation",
    "use_correlation_id": "chegou_otel.correlation",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on use: OpenTelemetry's SDK takes a while, and ``import chegou_otel`` does not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
