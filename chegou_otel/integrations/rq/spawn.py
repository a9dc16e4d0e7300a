"""SpawnWorker's work-horse is a fresh Python: set-up and the parent's segment reach it by its ``-c`` source.

RQ builds that source inside ``fork_work_horse``; for as long as that runs, ``os.posix_spawn`` (RQ 3) and ``os.spawnv`` (RQ 2) put our
line in front of it.
"""

from __future__ import annotations

import functools
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Whatever goes wrong in it stays in it: the job runs all the same.
_LINE: Final = """
try:
    import sys
    sys.path += [entry for entry in {path!r} if entry not in sys.path]
    from chegou_otel.integrations.rq.spawn import begin
    begin({arguments!r}, {segment!r}, {parent!r})
except Exception as error:
    print(f"chegou_otel: this work-horse runs without telemetry: {{error!r}}", file=sys.stderr)
"""
_spawned = False
_path: str | None = None


def is_spawned() -> bool:
    """Whether this process is a work-horse that :func:`begin` set up."""
    return _spawned


def segment_path() -> str | None:
    """The segment that the parent reserved for this process."""
    return _path


@contextmanager
def bootstrapped(segment_path: str | None) -> Iterator[None]:
    """Put our line in front of the source of the Python that is spawned within the block."""
    from chegou_otel import _setup

    arguments = _setup.arguments()
    line = _LINE.format(path=sys.path, arguments=arguments, segment=segment_path, parent=os.getpid())
    with _prefixed(os, "posix_spawn", 1, line), _prefixed(os, "spawnv", 2, line):
        yield


@contextmanager
def _prefixed(owner: Any, name: str, position: int, line: str) -> Iterator[None]:
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def spawn(*args: Any, **kwargs: Any) -> Any:
        argv = list(args[position])
        if len(argv) == 3 and argv[1] == "-c" and "work_horse" in argv[2]:  # noqa: PLR2004 - python -c source
            argv[2] = line + argv[2]
            args = (*args[:position], argv, *args[position + 1 :])
        return original(*args, **kwargs)

    setattr(owner, name, spawn)
    try:
        yield
    finally:
        setattr(owner, name, original)


def begin(arguments: dict[str, Any], segment: str | None, parent: int) -> None:
    """In the spawned work-horse: ``setup()`` with the parent's arguments, writing to the segment that it reserved.

    Where the environment has set telemetry up already (``chegou-otel run``), that stays and hands over.
    """
    global _spawned, _path
    if os.getpid() == parent:
        return  # somebody runs the source without spawning
    from chegou_otel import _guard, _setup

    _spawned, _path = True, segment

    @_guard.guarded
    def run() -> None:
        if _setup._current is None:
            _setup.start({**arguments, "active": "always"})
        # The worker's classes are imported now, so that the work-horse hands over before it performs anything.
        __import__("rq.worker.worker_classes")

    run()
