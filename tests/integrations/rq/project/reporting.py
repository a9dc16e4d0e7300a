"""A candidate for the reporter with a short lease: ``reporting.py worker|cron``."""

from __future__ import annotations

import os
import sys

import chegou_otel
from chegou_otel.integrations.rq import reporter

reporter.LEASE_SECONDS = float(os.environ.get("HUB_LEASE", "1.5"))
chegou_otel.setup("hub", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"], active="always")


def observe():
    """A measurement of the process, by somebody else's instrument."""
    from opentelemetry import metrics

    metrics.get_meter("hub").create_observable_gauge("hub.pid", callbacks=[lambda _: [metrics.Observation(os.getpid())]])


if __name__ == "__main__":
    import redis
    import rq.worker
    from rq.cron import CronScheduler

    observe()
    connection = redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))
    if sys.argv[1] == "cron":
        import measured_jobs

        scheduler = CronScheduler(connection=connection)
        scheduler.register(measured_jobs.counted, "default", interval=3600, name="nightly")
        scheduler.start()
    else:
        rq.Worker(["default"], connection=connection).work(burst=sys.argv[2:] == ["burst"])
