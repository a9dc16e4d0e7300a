"""A Redis connection of our own, to where RQ's go: the same address and credentials, a deadline, no retries."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _forks

if TYPE_CHECKING:
    from collections.abc import Iterator

#: No answer within this time is none.
DEADLINE_SECONDS: Final = 2.0
_NAME: Final = "chegou-otel"
#: What a connection keeps of the one that it is modelled on; ``ssl…`` too. The rest are habits of the application's.
_KEPT: Final = ("host", "port", "path", "db", "username", "password", "credential_provider", "server")


def prefix() -> str:
    """What RQ's keys begin with."""
    return str(getattr(sys.modules.get("rq.defaults"), "RQ_KEY_PREFIX", None) or os.environ.get("RQ_KEY_PREFIX") or "rq")


def address(client: Any) -> str:
    """Which database it is, the same in every process: ``host:port/database``."""
    pool = client.connection_pool
    found = pool.connection_kwargs
    place = getattr(pool, "service_name", None) or found.get("path") or f"{found.get('host', 'localhost')}:{found.get('port', 6379)}"
    return f"{place}/{found.get('db') or 0}"


def prepare() -> None:
    """Import now what making and opening a connection imports by the way.

    Our threads do both. A fork (a pool begins a worker) while one of them imports leaves the child with a module lock that
    nobody releases, and the child waits for it with its own first connection.
    """
    import encodings.idna  # noqa: F401, of any host name that is text
    import importlib.metadata

    import redis

    importlib.metadata.version(redis.__name__)  # redis-py asks that for every pool, to say who it is


@functools.cache
def calm(kind: type) -> type:
    """``kind`` of connection for a thread of ours, which looks names up: a child that is forked meanwhile would hang in its own look-up."""

    class Calm(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            with _forks.calm():
                return super()._connect()

    return Calm if hasattr(kind, "_connect") else kind


def like(client: Any) -> Any:
    """A client of our own for the same database. Nothing connects before it is used."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    own: dict[str, Any] = {
        "socket_timeout": DEADLINE_SECONDS, "socket_connect_timeout": DEADLINE_SECONDS, "retry": Retry(NoBackoff(), 0),
        "client_name": _NAME,
    }  # fmt: skip
    pool = client.connection_pool
    given = pool.connection_kwargs
    kept = {key: value for key, value in given.items() if key in _KEPT or key.startswith("ssl")}
    sentinel = getattr(pool, "sentinel_manager", None)
    if sentinel is not None:
        return sentinel.master_for(pool.service_name, **{**kept, **own})
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=calm(pool.connection_class), **{**kept, **own}))


def of_settings() -> Iterator[Any]:
    """Clients for what the environment and Django's settings name: ``RQ_REDIS_URL``, and django-rq's ``RQ_QUEUES``.

    It imports nothing: this may run on the courier's thread. Who has not imported redis has no queue to look after.
    """
    redis, url = sys.modules.get("redis"), os.environ.get("RQ_REDIS_URL")
    if redis is not None and url:
        yield redis.Redis.from_url(url)
    utils, settings = sys.modules.get("django_rq.connection_utils"), sys.modules.get("django_rq.settings")
    if utils is not None and settings is not None:
        for name in getattr(settings, "QUEUES", {}):
            yield utils.get_connection(name)
