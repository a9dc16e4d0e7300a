"""Who tells an ending that several processes may see: one ``SET NX`` in the jobs' own Redis.

A work-horse that ends in order asks nobody. An abnormal ending may be seen by its parent, by whoever adopts its segment and by
whoever cleans the registry, perhaps on another host: the first to claim it tells it. Where Redis does not answer, everybody may
tell: twice the same span ID is better than never. RQ's connection is not used, only its address: an answer that never comes must
not hold up more than a moment.

Between the claim and the telling the process may die, too. So a claim says who made it, and one that was made with the execution's own
words in hand is taken over from a dead process by whoever is handed these words next: they are let go only once they are told.
"""

from __future__ import annotations

import _thread
import functools
import os
import re
import sys
import time
import zlib
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chegou_otel import _guard
from chegou_otel._guard import guarded
from chegou_otel.delivery import process
from chegou_otel.integrations.rq.connection import calm

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime

KEY: Final = "chegou_otel:told:{}"
#: Registries are cleaned within minutes of a worker's death; a host that was cut off may come back the next day.
TTL_SECONDS: Final = 2 * 86_400
ANSWER_SECONDS: Final = 0.5
_EXIT: Final = re.compile(r"waitpid returned (\d+)")
_BY_USER: Final = "Job stopped by user"
_ABANDONED: Final = "AbandonedJobError"
_MOST_TEXT: Final = 8_192
_WORDS: Final = "words"
#: What RQ's records are of, and what a job's status stands for once its work-horse has left. There is no record of what is retried
#: after an exception; a job that is to be repeated may be queued again for another reason.
_TYPES: Final = {b"1": "finished", b"2": "failed", b"4": "retried", b"5": "failed"}
_STATUSES: Final = {b"finished": "finished", b"failed": "failed", b"queued": "retried", b"scheduled": "retried"}


class Ending(NamedTuple):
    """How an execution ended, as RQ noted it, and when."""

    outcome: str
    facts: dict[str, Any]
    time: int


class Claims:
    """Knows a Redis by what of RQ came by last in this process."""

    def __init__(self) -> None:
        self._connection: Any = None
        #: Whether the last question took all of its time, and had no answer.
        self.hang = False

    def patch(self, runtime: Runtime, module: ModuleType, name: str = "Queue") -> None:
        """A process that only enqueues may be the one that tells, and so may a pool's, which only begins workers."""

        def make(original: Callable[..., None]) -> Callable[..., None]:
            @functools.wraps(original)
            def __init__(owner: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
                original(owner, *args, **kwargs)
                self._connection = getattr(owner, "connection", None) or self._connection

            return __init__

        runtime.wrap(getattr(module, name), "__init__", make)

    def know(self, connection: Any) -> None:
        if connection is not None:
            self._connection = connection

    def take(self, execution_id: str, outcome: str, connection: Any = None, *, words: bool = False) -> bool:
        """Whether it is ours to tell: nobody claimed it before, or nobody can say. ``words``: we have what it wrote itself."""
        if not execution_id:
            return True
        key, who = KEY.format(execution_id), f"{os.uname().nodename};{os.getpid()};{process.moment()};{_WORDS if words else ''}"
        set_it = ("SET", key, f"{outcome};{time.time_ns()};{who}", "EX", str(TTL_SECONDS))
        if self._ask(connection, *set_it, "NX") is not None:
            return True
        return words and bool(_left(self._ask(connection, "GET", key))) and self._ask(connection, *set_it) is not None

    def ending(self, job_id: str, execution_id: str) -> Ending | None:
        """What RQ's own record says of an execution whose process is gone: its parent may have lived on and known the exit."""
        return next((found for number, fields in self._results(job_id, execution_id) if (found := _ending_in(number, fields))), None)

    def _results(self, job_id: str, execution_id: str) -> list[tuple[Any, dict[bytes, bytes]]]:
        """RQ's records of an execution, the newest first, with their numbers. None are kept of a job with ``result_ttl=0``."""
        results: Any = sys.modules.get("rq.results")
        if results is None or self._connection is None:
            return []
        answer = self._ask(None, "XREVRANGE", results.Result.get_key(job_id), "+", "-", "COUNT", "10")
        return _of_execution(answer, execution_id.encode()) or [] if isinstance(answer, list) else []

    def stored(self, job: Any, execution_id: str) -> str | None:
        """How an execution ended by what RQ stored: a work-horse that ended in order may have lost its own word."""
        self.know(job.connection)
        if records := self._results(job.id, execution_id):
            return _TYPES.get(records[0][1].get(b"type", b""))
        outcome = _STATUSES.get(_bytes(self._ask(None, "HGET", job.key, "status") or b""))
        return None if outcome == "retried" and getattr(job, "repeats_left", None) is not None else outcome

    def _ask(self, connection: Any, *command: str) -> Any:
        """The answer; ``None`` is Redis' nil. ``False`` when there was no answer."""
        self.know(connection)
        known, asked = self._connection, time.monotonic()
        if known is None:
            return False
        answer = _aside(lambda: _once(known.connection_pool, command))
        self.hang = answer is False and time.monotonic() - asked >= ANSWER_SECONDS / 2
        return answer


@guarded
def _left(claim: Any) -> bool:
    """Whether a claim is of a process of this host that had the words and is gone."""
    parts = _bytes(claim).decode().split(";") if isinstance(claim, bytes | str) else []
    if parts[5:] != [_WORDS] or parts[2] != os.uname().nodename:
        return False
    return not process.alive(int(parts[3]), int(parts[4]))


def _aside(call: Callable[[], Any]) -> Any:
    """What ``call`` returns, on a thread of its own: an alarm of RQ's would be lost in there, and a name look-up has no deadline."""
    done, found = _thread.allocate_lock(), []
    done.acquire()

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:
            _guard.logger.debug("Redis did not answer: %r", error)
        finally:
            done.release()

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:  # no thread to be had, or too late in the life of the interpreter
        return False
    done.acquire(timeout=2 * ANSWER_SECONDS)
    return found[0] if found else False


def _once(pool: Any, command: tuple[str, ...]) -> Any:
    """A connection for this one command, with a deadline and no second try."""
    options = {**pool.connection_kwargs, "socket_timeout": ANSWER_SECONDS, "retry": None, "retry_on_timeout": False, "retry_on_error": []}
    if "path" not in options:
        options["socket_connect_timeout"] = ANSWER_SECONDS
    made = calm(pool.connection_class)(**options)
    try:
        made.connect()
        made.send_command(*command)
        return made.read_response()
    finally:
        made.disconnect()


@guarded
def _of_execution(entries: list[Any], execution_id: bytes) -> list[tuple[Any, dict[bytes, bytes]]]:
    read = [(number, [_bytes(each) for each in fields]) for number, fields in entries]
    found = [(number, dict(zip(raw[::2], raw[1::2], strict=False))) for number, raw in read]
    return [(number, fields) for number, fields in found if fields.get(b"execution_id") == execution_id]


@guarded
def _ending_in(number: Any, fields: dict[bytes, bytes]) -> Ending | None:
    if b"exc_string" not in fields:
        return None
    text = zlib.decompressobj().decompress(b64decode(fields[b"exc_string"]), _MOST_TEXT).decode(errors="replace")
    return _read(text, int(_bytes(number).partition(b"-")[0]) * 1_000_000)


def _read(text: str, at: int) -> Ending | None:
    """RQ's own words for an end that its worker saw, and nothing else: a traceback is the work-horse's to tell."""
    if text.startswith(_BY_USER):
        return Ending("stopped", {}, at)
    if _ABANDONED in text and text.startswith("Moved to"):
        return Ending("abandoned", {}, at)
    waited = _EXIT.search(text) if text.startswith("Work-horse terminated") else None
    return Ending(*of_status(int(waited[1])), at) if waited else None


def of_status(status: int) -> tuple[str, dict[str, Any]]:
    """What a status from ``wait`` says of a process that told nothing itself."""
    if os.WIFSIGNALED(status):
        return "killed", {"rq.job.exit_signal": os.WTERMSIG(status)}
    return "vanished", {"rq.job.exit_code": os.waitstatus_to_exitcode(status)}


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
