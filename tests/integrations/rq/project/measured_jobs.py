"""Jobs that measure, and jobs that take their time."""

from __future__ import annotations

import time


def counted():
    from opentelemetry import metrics

    meter = metrics.get_meter("hub")
    meter.create_counter("hub.counted").add(1)
    meter.create_histogram("hub.sizes").record(3)


def report_sales():
    pass


def refuse(secret):
    raise LookupError("no luck")


def parent(port, seconds):
    """A long job that enqueues another, which a web process would take as a sign that it may report."""
    import redis
    import rq

    rq.Queue("children", connection=redis.Redis(port=port)).enqueue("measured_jobs.counted")
    time.sleep(seconds)
