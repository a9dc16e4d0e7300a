"""The current context, without the calls that lie between OpenTelemetry's API and its ``ContextVar``.

It is asked for with every command, line and span, and in a work-horse each function that runs is a page to be copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry import context as api
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar, Token

    from opentelemetry.context import Context


def _variable() -> ContextVar[Context] | None:
    """Where the API keeps it; ``None`` when somebody has set ``OTEL_PYTHON_CONTEXT`` to something of their own."""
    runtime = getattr(api, "_RUNTIME_CONTEXT", None)
    return getattr(runtime, "_current_context", None) if type(runtime) is ContextVarsRuntimeContext else None


_held: Final = _variable()
get_current: Callable[[], Context] = api.get_current if _held is None else _held.get
attach: Callable[[Context], Token[Context]] = api.attach if _held is None else _held.set
