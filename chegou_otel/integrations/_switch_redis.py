"""The switch in a Redis, for deployments across hosts: read only, on a thread of its own, and nobody waits for it."""

from __future__ import annotations

import _thread
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context

from chegou_otel import _guard
from chegou_otel._context import attach
from chegou_otel.integrations.redis import QUIET
from chegou_otel.integrations.rq import connection

if TYPE_CHECKING:
    from collections.abc import Sequence

ASK_SECONDS: Final = 2.0


class Remote:
    """Calling it returns the last answer, and sees to it that somebody asks.

    Where no answer comes, the last one holds; a process that never had one takes telemetry to be on.
    """

    def __init__(self, url: str, keys: Sequence[str]) -> None:
        connection.prepare()
        import redis

        self._client = connection.like(redis.Redis.from_url(url))
        self._keys = tuple(keys)
        self._answer: str | None = None
        self._pid = 0
        self._stopped = False

    def __call__(self) -> str | None:
        if self._pid != os.getpid() and not self._stopped:
            self._pid = os.getpid()
            with contextlib.suppress(RuntimeError):  # too late in the life of the interpreter
                _thread.start_new_thread(self._main, ())
        return self._answer

    def stop(self) -> None:
        self._stopped = True

    def _main(self) -> None:
        attach(Context({_SUPPRESS_INSTRUMENTATION_KEY: True, QUIET: True}))
        while not self._stopped:
            try:
                self._answer = self._ask()
            except Exception as error:
                _guard.pass_foreign(error)
            time.sleep(ASK_SECONDS)

    def _ask(self) -> str | None:
        found: list[Any] = self._client.mget(self._keys)
        answer = next((value for value in found if value is not None), None)
        return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
