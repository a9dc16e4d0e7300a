"""SpawnWorker's work-horse is a fresh Python: set-up, the parent's segment and who its parent is reach it by its ``-c`` source.

RQ builds that source inside ``fork_work_horse``; for as long as that runs, ``os.posix_spawn`` (RQ 3) and ``os.spawnv`` (RQ 2) put our
line in front of it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chegou_otel._guard import guarded
from chegou_otel.integrations.rq import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel._runtime import Runtime
    from chegou_otel.delivery.segments import Segment

#: Where the parent leaves it. Not in the source: everybody can read the command line of a process, and a proxy has a password.
_VARIABLE: Final = "_CHEGOU_OTEL_SPAWN"
#: Bytes. Linux takes 128 KiB for one variable.
_MOST: Final = 100_000
#: Whatever goes wrong in it stays in it: the job runs all the same.
_LINE: Final = """
try:
    import sys
    sys.path += [entry for entry in {path!r} if entry not in sys.path]
    from chegou_otel.integrations.rq.spawn import begin
    begin()
except Exception as error:
    print(f"chegou_otel: this work-horse runs without telemetry: {{error!r}}", file=sys.stderr)
"""


class Inheritance(NamedTuple):
    """What a spawned work-horse has of its parent: the segment that was reserved for it, its service, and its encoded resource."""

    segment: str | None
    service: str
    resource: bytes


_inherited: Inheritance | None = None


def inherited() -> Inheritance | None:
    """Of a process that is a work-horse which :func:`begin` set up."""
    return _inherited


@guarded
def left(runtime: Runtime, segment: Segment | None) -> str | None:
    """What the next spawned work-horse is to have of this process; ``None`` when that is more than an environment takes."""
    from chegou_otel import _setup

    recorder = runtime.recorder
    text = json.dumps({
        # Its name cannot be guessed there: the command line says nothing.
        "arguments": {
            **_setup.arguments(), "service_name": recorder.pool.service, "active": "always" if runtime.recording else "never",
        },
        "segment": None if segment is None else segment.address,
        "resource": recorder.resource.hex(),
        "parent": os.getpid(),
    })  # fmt: skip
    return text if len(text) < _MOST else None


@contextmanager
def bootstrapped(left: str) -> Iterator[None]:
    """Put our line in front of the source of the Python that is spawned within the block, and what is left for it in its environment."""
    line = _LINE.format(path=sys.path)

    def prepare(argv: Any, env: Any) -> tuple[Any, Any]:
        if len(argv) == 3 and argv[1] == "-c" and "work_horse" in argv[2]:  # noqa: PLR2004 - python -c source
            return [*argv[:2], line + argv[2]], {**env, _VARIABLE: left}
        return argv, env

    posix_spawn, spawnv = os.posix_spawn, os.spawnv

    def own_posix_spawn(path: Any, argv: Any, env: Any, *args: Any, **kwargs: Any) -> int:
        return posix_spawn(path, *prepare(argv, env), *args, **kwargs)

    def own_spawnv(mode: int, path: Any, argv: Any) -> int:
        return os.spawnve(mode, path, *prepare(argv, os.environ))  # noqa: S606 - as RQ does

    owner: Any = os
    owner.posix_spawn, owner.spawnv = own_posix_spawn, own_spawnv
    try:
        yield
    finally:
        owner.posix_spawn, owner.spawnv = posix_spawn, spawnv


def begin() -> None:
    """In the spawned work-horse: ``setup()`` with the parent's arguments, writing to the segment that it reserved.

    Where the environment has set telemetry up already (``chegou-otel run``), that stays and hands over. RQ's own commands are quiet
    from here on, as in the main thread of a worker.
    """
    global _inherited
    told = json.loads(os.environ.pop(_VARIABLE))
    if os.getpid() == told["parent"]:
        return  # somebody runs the source without spawning
    from chegou_otel import _setup

    _inherited = Inheritance(told["segment"], told["arguments"]["service_name"], bytes.fromhex(told["resource"]))

    @guarded
    def run() -> None:
        telemetry = _setup.current() or _setup.start(told["arguments"])
        quiet.process(telemetry.runtime)
        # The worker's classes are imported now, so that the work-horse hands over before it performs anything.
        __import__("rq.worker.worker_classes")

    run()
