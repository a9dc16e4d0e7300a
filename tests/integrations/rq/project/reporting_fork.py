"""A reporter that is forked while it reports: prints the child's PID."""

from __future__ import annotations

import os
import time

import redis
import reporting  # noqa: F401 - calls `setup()`

from chegou_otel import _setup
from chegou_otel.integrations.rq.election import Rank, key_of
from chegou_otel.integrations.rq.reporter import Reporter

if __name__ == "__main__":
    connection = redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))
    reporter = Reporter(_setup._current.runtime)
    reporter.see(connection, Rank.WEB)
    while not connection.exists(key_of("rq")):
        time.sleep(0.05)
    child = os.fork()
    if not child:
        reporter.look_around()
    else:
        print(child, flush=True)
    time.sleep(60)
