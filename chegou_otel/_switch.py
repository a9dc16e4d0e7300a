"""The switch: telemetry off and on again while processes run. ``chegou-otel off`` and ``on`` set it, every process looks at it.

Off is a file beside a service's folder in the spool, ``<service>@off``, or ``@off`` for all services there; or a key in a Redis that a
setting names. The courier looks once a second, a worker before it forks; requests and jobs never do. While it is off nothing is
recorded or sent, what lies in the spool stays there, and correlation IDs and response headers go on.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chegou_otel import _forks
from chegou_otel._guard import guarded
from chegou_otel.delivery import folder
from chegou_otel.signals.tracing import TracerProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from chegou_otel._runtime import Runtime

#: How their names end; no service's folder can.
NAME: Final = "@off"
#: In a Redis; behind it, after a colon, a service.
KEY: Final = "chegou_otel:off"
LOOK_SECONDS: Final = 1.0
_MOST: Final = 4_096
logger = logging.getLogger("chegou_otel")
_current: Switch | None = None


class Off(NamedTuple):
    """Telemetry is off: since when (seconds since 1970), by whom, why, and where it says so."""

    since: float
    by: str
    reason: str
    where: str

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"off since {since} by {self.by}{f': {self.reason}' if self.reason else ''} ({self.where})"

    def encode(self) -> str:
        return json.dumps({"since": self.since, "by": self.by, "reason": self.reason})


def places(service: str | None, spool_dir: str | None = None) -> list[str]:
    """Files that switch a service off, or, without one, all services: its processes look for any of them."""
    name = folder.folder_name(service) if service else ""
    return [f"{parent}/{name}{NAME}" for parent in _parents(spool_dir)]


def looked_for(service: str, spool_dir: str | None = None) -> list[str]:
    """All files that a process of ``service`` looks for."""
    return [*places(service, spool_dir), *places(None, spool_dir)]


def _parents(spool_dir: str | None) -> list[str]:
    return list(dict.fromkeys(path.rpartition("/")[0] for path in folder.candidates("x", spool_dir)))


def state(service: str, spool_dir: str | None = None) -> Off | None:
    """What the files say about a service of this user; ``None`` when it is on."""
    return next((off for path in looked_for(service, spool_dir) if (off := read(path)) is not None), None)


def read(path: str) -> Off | None:
    """What a file says. One that cannot be read, or is neither ours nor root's, says nothing: telemetry goes on."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return decode(os.read(descriptor, _MOST).decode("utf-8", "replace"), path, status.st_mtime, f"user {status.st_uid}")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def decode(text: str, where: str, since: float = 0.0, by: str = "somebody") -> Off:
    """What was written there; an empty file, or one that somebody made by hand, will do."""
    told: Any = None
    with contextlib.suppress(ValueError):
        told = json.loads(text)
    if not isinstance(told, dict):
        return Off(since, by, "", where)
    when = told.get("since")
    return Off(when if isinstance(when, int | float) else since, str(told.get("by") or by), str(told.get("reason") or ""), where)


class Switch:
    """One per ``setup()``. ``remote`` tells what a Redis says, without waiting for it."""

    def __init__(self, runtime: Runtime, service: str, remote: Callable[[], str | None] | None = None) -> None:
        global _current
        provider = runtime.tracer_provider
        self._runtime = runtime
        self._places = looked_for(service, runtime.settings.spool_dir)
        self._remote = remote
        self._next = 0.0
        #: This process was begun for one job: it starts nothing, and its worker has said what there is to say.
        self._for_a_job = "RQ_WORKER_ID" in os.environ
        self._spans = provider.state if isinstance(provider, TracerProvider) else None
        #: What holds when it is on: a signal may be off by a setting.
        self._recorded = (self._spans is not None and self._spans.armed, runtime.bridge.recording)
        #: What is in force; ``None`` is on.
        self.off: Off | None = None
        _current = self

    def serve(self, service: str) -> None:
        """In a spawned work-horse, which is of its worker's service."""
        self._places = looked_for(service, self._runtime.settings.spool_dir)
        self._next = 0.0
        self.look()

    def look(self) -> bool:
        """Whether telemetry is off. It looks once a second; a failure leaves everything as it is."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            self._look()
        return self.off is not None

    @guarded
    def _look(self) -> None:
        found = next((off for path in self._places if (off := read(path)) is not None), None)
        if found is None and self._remote is not None and (told := self._remote()) is not None:
            found = decode(told, KEY)
        before, self.off = self.off, found
        if (before is None) is not (found is None):
            self._turn(found)

    def _turn(self, off: Off | None) -> None:
        runtime = self._runtime
        spans, logs = self._recorded if off is None else (False, False)
        if self._spans is not None:
            self._spans.armed = spans
        runtime.bridge.recording = logs
        runtime.recorder.mute(off is not None)
        if not self._for_a_job:
            logger.warning("telemetry is %s", "on again" if off is None else f"{off}; correlation IDs go on")
        if off is not None:
            _hook()
            self.begin()

    def begin(self) -> None:
        """In a process that is off from its beginning: nothing recorded would start the courier, which looks."""
        if self.off is not None and not self._for_a_job:
            self._runtime.recorder.start()


@functools.cache
def _hook() -> None:
    _forks.in_child(_begin_in_child)


def _begin_in_child() -> None:
    # What a worker forks is a work-horse, which starts nothing; the next one is forked by who has looked.
    if _current is not None and _current.off is not None and _current._runtime.role != "worker":
        guarded(_current._runtime.recorder.start)()
