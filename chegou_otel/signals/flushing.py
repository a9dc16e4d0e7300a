"""``force_flush`` of our providers, which the application may call: a command before it ends, a function that is frozen afterwards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _nothing_held(_timeout: float) -> bool:
    return True


class Flushing:
    """In front of one of the SDK's providers, which asks its own processors and readers, and knows nothing of the recorder."""

    #: Sends what is recorded, of all signals, within so many seconds.
    flush: Callable[[float], bool] = staticmethod(_nothing_held)

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """True when everything recorded so far was delivered; the time is that of the wall."""
        end = time.monotonic() + timeout_millis / 1000
        done = super().force_flush(timeout_millis)  # type: ignore[misc]
        return self.flush(max(0.0, end - time.monotonic())) and done is not False
