"""A burst worker in which somebody else's instrument observes the process: ``measuring.py Worker``."""

from __future__ import annotations

import os
import sys

import chegou_otel

chegou_otel.setup("hub", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"], active="always")

import redis  # noqa: E402
import rq.worker  # noqa: E402
from opentelemetry import metrics  # noqa: E402

if __name__ == "__main__":
    metrics.get_meter("hub").create_observable_gauge("hub.pid", callbacks=[lambda _: [metrics.Observation(os.getpid())]])
    connection = redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))
    getattr(rq.worker, sys.argv[1])(["default"], connection=connection).work(burst=True)
