"""What RQ keeps in Redis, read without changing it.

RQ's own classes clean up while they count (``registry.count``, ``Worker.all()``): they move abandoned jobs and run users' failure
callbacks. So the keys are read directly, in a few pipelines, by commands that only read. What RQ would have cleaned away by now
(results past their time, workers without a sign of life) is not counted.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Gauge → unit, description. Their labels: see ``docs/rq.md``.
GAUGES: Final = {
    "rq.queue.jobs": ("{job}", "Jobs by queue and status."),
    "rq.queue.oldest_job_age": ("s", "How long the oldest job has been queued."),
    "rq.queue.scheduled_lateness": ("s", "How long the next scheduled job is overdue."),
    "rq.workers": ("{worker}", "Workers alive, by state."),
    "rq.cron.schedulers": ("{scheduler}", "Cron schedulers alive."),
    "rq.cron.lateness": ("s", "How long a cron job is overdue."),
    "rq.cron.last_enqueue_age": ("s", "How long ago a cron job was enqueued."),
}
WORKER_STATES: Final = ("started", "busy", "idle", "suspended")
#: Status → its registry's part of the key. Scored by when they expire: what has expired only waits to be cleaned away.
_EXPIRING: Final = {"started": "wip", "failed": "failed", "finished": "finished"}
#: Scored by something else.
_LASTING: Final = {"deferred": "deferred", "scheduled": "scheduled", "canceled": "canceled", "ready": "ready"}
MAX_QUEUES: Final = 100
MAX_CRON_JOBS: Final = 100
#: Jobs that are held back by a rate limit belong to queues, which only the jobs know; of more than so many, the rest is ``_OTHER``'s.
MAX_ORIGINS: Final = 500
_MAX_WORKERS: Final = 2_000
_MAX_RATE_LIMITS: Final = 2_000
#: Jobs may be put in front of older ones, or be deleted: so many at a queue's head are looked at.
_HEAD: Final = 5
#: A worker says that it lives at least every 405 s, and its entry expires at 480; one without expiry is dead after that.
_WORKER_SECONDS: Final = 540
_SCHEDULER_SECONDS: Final = 120

Labels = tuple[tuple[str, str], ...]


class Value(NamedTuple):
    """One value of one gauge."""

    gauge: str
    labels: Labels
    value: float


class Reader:
    """Reads one Redis. ``prefix`` is RQ's, ``clock`` the time in seconds."""

    def __init__(self, client: Any, prefix: str = "rq", clock: Callable[[], float] = time) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock

    def read(self) -> list[Value]:
        """Everything, now.

        Raises:
            redis.RedisError: Redis did not answer in time, or refused.
        """
        now = self._clock()
        return [*self._queues(now), *self._workers(now), *self._cron(now)]

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def _pipe(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """The answers to ``commands``, asked in one go."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        found: list[Any] = pipeline.execute()
        return found

    # -- queues

    def _queues(self, now: float) -> list[Value]:
        prefix = self._key("queue", "")
        keys, limits = self._pipe([("SMEMBERS", self._key("queues")), ("SMEMBERS", self._key("rl-keys"))])
        names = sorted(_text(key).removeprefix(prefix) for key in keys)[:MAX_QUEUES]
        held = self._held_back([_text(key) for key in limits])
        found = [value for name in names for value in self._queue(name, held.pop(name, 0), now)]
        rest = sum(held.values())
        return [*found, *([_jobs("_OTHER", "rate_limited", rest)] if rest else [])]

    def _queue(self, name: str, held: int, now: float) -> list[Value]:
        key, scheduled = self._key("queue", name), self._key("scheduled", name)
        queued, taken, head, last, due, *counts = self._pipe(
            [
                ("LLEN", key),
                ("LLEN", f"{key}:intermediate"),
                ("LRANGE", key, 0, _HEAD - 1),
                ("LINDEX", key, -1),
                ("ZRANGE", scheduled, 0, 0, "WITHSCORES"),
                *(("ZCOUNT", self._key(part, name), now, "+inf") for part in _EXPIRING.values()),
                *(("ZCARD", self._key(part, name)) for part in _LASTING.values()),
            ]
        )
        by_status = {
            "queued": queued,
            "intermediate": taken,
            **dict(zip((*_EXPIRING, *_LASTING), counts, strict=True)),
            "rate_limited": held,
        }
        queue = (("messaging.destination.name", name),)
        overdue = _since(_score(due), now) if due else 0.0
        return [
            *(_jobs(name, status, count) for status, count in by_status.items()),
            Value("rq.queue.oldest_job_age", queue, self._oldest([*head, *([last] if last else [])], now)),
            Value("rq.queue.scheduled_lateness", queue, overdue),
        ]

    def _oldest(self, job_ids: list[Any], now: float) -> float:
        """The age of the oldest of these jobs, in seconds; 0 without any."""
        if not job_ids:
            return 0.0
        answers = self._pipe(("HGET", self._key("job", _text(job_id)), "enqueued_at") for job_id in job_ids)
        return max((_since(_moment(answer), now) for answer in answers), default=0.0)

    def _held_back(self, limits: list[str]) -> dict[str, int]:
        """Jobs held back by rate limits, by queue."""
        keys = [self._key("rl", limit, "rate_limited") for limit in limits[:_MAX_RATE_LIMITS]]
        counts = self._pipe(("ZCARD", key) for key in keys)
        found: dict[str, int] = {}
        room = MAX_ORIGINS
        for key, count in zip(keys, counts, strict=True):
            looked_at = self._pipe([("ZRANGE", key, 0, min(count, room) - 1)])[0] if count and room else []
            room -= len(looked_at)
            origins = self._pipe(("HGET", self._key("job", _text(job_id)), "origin") for job_id in looked_at)
            for origin in origins:
                name = _text(origin) if origin else "_OTHER"
                found[name] = found.get(name, 0) + 1
            if count > len(looked_at):
                found["_OTHER"] = found.get("_OTHER", 0) + count - len(looked_at)
        return found

    # -- workers

    def _workers(self, now: float) -> list[Value]:
        keys = sorted(_text(key) for key in self._pipe([("SMEMBERS", self._key("workers"))])[0])[:_MAX_WORKERS]
        answers = self._pipe(("HMGET", key, "state", "last_heartbeat", "death") for key in keys)
        states = dict.fromkeys(WORKER_STATES, 0)
        for state, heartbeat, death in answers:
            if death or not heartbeat or _since(_moment(heartbeat), now) > _WORKER_SECONDS:
                continue
            name = _text(state) if state else "started"
            name = name if name in states else "started"
            states[name] += 1
        return [Value("rq.workers", (("rq.worker.state", state),), count) for state, count in states.items()]

    # -- cron

    def _cron(self, now: float) -> list[Value]:
        known, enqueued = self._pipe(
            [
                ("ZRANGE", self._key("cron_schedulers"), 0, -1, "WITHSCORES"),
                ("ZRANGE", self._key("cron_jobs"), -MAX_CRON_JOBS, -1, "WITHSCORES"),
            ]
        )
        alive = [name for name, score in _pairs(known) if score > now - _SCHEDULER_SECONDS]
        plans = self._pipe(("HGET", self._key("cron_scheduler", name), "cron_jobs") for name in alive)
        lateness: dict[str, float] = {}
        for name, due in (each for plan in plans if plan for each in _due(plan)):
            lateness[name] = max(lateness.get(name, 0.0), _since(due, now))
        return [
            Value("rq.cron.schedulers", (), len(alive)),
            *(Value("rq.cron.lateness", (("rq.cron.name", name),), lateness[name]) for name in sorted(lateness)[:MAX_CRON_JOBS]),
            *(Value("rq.cron.last_enqueue_age", (("rq.cron.name", name),), _since(at, now)) for name, at in _pairs(enqueued)),
        ]


def _jobs(queue: str, status: str, count: int) -> Value:
    return Value("rq.queue.jobs", (("messaging.destination.name", queue), ("rq.job.status", status)), count)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _pairs(answer: list[Any]) -> list[tuple[str, float]]:
    """Members and scores, as RESP2 (flat) and RESP3 (nested) and redis-py (tuples) answer."""
    if answer and isinstance(answer[0], list | tuple):
        return [(_text(member), float(score)) for member, score in answer]
    return [(_text(member), float(score)) for member, score in zip(answer[::2], answer[1::2], strict=True)]


def _score(answer: list[Any]) -> float:
    return _pairs(answer)[0][1]


def _moment(value: Any) -> float | None:
    """RQ's timestamps: UTC, with or without a fraction."""
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _since(moment: float | None, now: float) -> float:
    return max(0.0, now - moment) if moment is not None else 0.0


def _due(plan: Any) -> list[tuple[str, float | None]]:
    """Cron jobs of a scheduler and when each is due next."""
    try:
        jobs = json.loads(plan)
    except ValueError:
        return []
    return [(job.get("name") or job.get("func_name") or "", _moment(job.get("next_enqueue_time"))) for job in jobs]
