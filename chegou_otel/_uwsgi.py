"""uWSGI: it forks workers in C, past the hooks that Python calls after a fork, and its older versions run threads only when told to."""

from __future__ import annotations

import functools
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _forks

if TYPE_CHECKING:
    from types import ModuleType

    from chegou_otel._runtime import Runtime

#: From here on threads run unless one asks for the contrary.
_THREADED: Final = (2, 0, 27)
_TOLD: Final = ("enable-threads", "threads")
_SILENT: Final = (
    "uWSGI runs no threads, so nothing is sent while this process lives: add `enable-threads = true` to its configuration. "
    "What is recorded is kept, and sent by the next process that has threads"
)


def install(runtime: Runtime) -> list[str]:
    """Where uWSGI runs this process: let its workers begin anew. Returns what to say when its configuration keeps us from sending."""
    server = sys.modules.get("uwsgi")  # in there from the start; nothing that could be imported elsewhere
    if server is None or not hasattr(server, "opt"):
        return []
    _hook(server)
    runtime.when_imported("uwsgidecorators", _join)
    return [] if not runtime.recording or threads_run(server) else [_SILENT]


def threads_run(server: Any) -> bool:
    """By its version and its options, whose names and values are text or bytes."""
    version = tuple(int(part) for part in re.findall(r"\d+", _text(server.version))[:3])
    given = {_text(name) for name, value in server.opt.items() if _text(value).lower() not in ("false", "0", "no")}
    return version >= _THREADED or not given.isdisjoint(_TOLD)


def _text(found: object) -> str:
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


@functools.cache
def _renewal() -> Any:
    """What begins anew in a worker, unless ``py-call-osafterfork`` has seen to it.

    Without a master uWSGI calls its hook in the process that loaded the application: that one goes on as it is, else two threads would send
    the same.
    """
    made_in, made_by = _forks.generation, os.getpid()

    def renew() -> None:
        if _forks.generation == made_in and os.getpid() != made_by:
            _forks.renew()

    return renew


@functools.cache
def _hook(server: ModuleType) -> None:
    renew, before = _renewal(), getattr(server, "post_fork_hook", None)

    def post_fork_hook() -> None:
        renew()
        if before is not None:
            before()

    server.post_fork_hook = post_fork_hook  # type: ignore[attr-defined]


def _join(decorators: Any) -> None:
    """Its module of decorators puts a hook of its own in the place of ours."""
    if _renewal() not in decorators.postfork_chain:
        decorators.postfork_chain.insert(0, _renewal())
