"""What the tests of enqueueing share: running what waits, and what a job's hash holds."""

from __future__ import annotations

from contextlib import contextmanager

import rq
from opentelemetry.context import Context, attach, detach, get_current
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler

from chegou_otel.integrations.redis import QUIET
from chegou_otel.integrations.rq import carrier


@contextmanager
def unseen():
    """What the test itself asks of Redis is not what it is about."""
    token = attach(Context({**get_current(), QUIET: True}))
    try:
        yield
    finally:
        detach(token)


def run(queue, *, worker=rq.SimpleWorker):
    """Run all that is queued, as a worker does."""
    worker([queue], connection=queue.connection).work(burst=True)


def run_all(queue):
    """Run all that is queued, and all that was scheduled meanwhile, to the end."""
    run(queue)
    while promote(queue):
        run(queue)


def promote(queue):
    """RQ's scheduler finds all that is scheduled due; how many jobs that were."""
    with unseen():
        registry = ScheduledJobRegistry(queue=queue)
        due = registry.get_job_ids()
        for job_id in due:
            queue.connection.zadd(registry.key, {job_id: 1})
        scheduler = RQScheduler([queue], connection=queue.connection)
        scheduler.acquire_locks()
        scheduler.enqueue_scheduled_jobs()
        scheduler.release_locks()
        return len(due)


def stored(queue, job):
    """The carrier in the job's hash."""
    with unseen():
        return carrier.decode(queue.connection.hget(job.key, carrier.FIELD).decode())
