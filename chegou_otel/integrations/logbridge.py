"""Every record that a logger of the standard library accepts passes here; no handler is added anywhere."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chegou_otel._runtime import Runtime

    Call = Callable[[logging.Logger, logging.LogRecord], None]


def install(runtime: Runtime) -> None:
    def make(original: Call) -> Call:
        @functools.wraps(original)
        def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
            if runtime.armed:
                runtime.bridge.handle(record)
            original(self, record)

        return callHandlers

    runtime.wrap(logging.Logger, "callHandlers", make)
