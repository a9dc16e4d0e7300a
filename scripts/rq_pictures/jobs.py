"""A small shop for the pictures: its jobs, and one way into the queue per picture (`python jobs.py <picture> <Redis's port>`)."""

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import redis
import rq
from opentelemetry import trace
from rq import Callback, Retry

tracer = trace.get_tracer("shop")


def confirm_order(_number: int) -> None:
    """Refused by the bank at its first attempt."""
    job = rq.get_current_job()
    with tracer.start_as_current_span("ask the bank"):
        time.sleep(0.05)
    if job is not None and job.retries_left == 2:  # as many as it was given
        raise ConnectionError("the bank does not answer")


def send_reminder(_number: int) -> None:
    """Scheduled."""
    with tracer.start_as_current_span("send mail"):
        time.sleep(0.02)


def pack(_number: int) -> None:
    """Others wait for it."""
    with tracer.start_as_current_span("print label"):
        time.sleep(0.08)


def ship(_number: int) -> None:
    """Waits for `pack`."""
    with tracer.start_as_current_span("call the courier"):
        time.sleep(0.05)


def charge(_number: int) -> None:
    """Has a callback."""
    with tracer.start_as_current_span("charge the card"):
        time.sleep(0.05)


def on_charged(*_: Any) -> None:
    """The callback."""
    with tracer.start_as_current_span("send receipt"):
        time.sleep(0.03)


def render_catalogue(_pages: int) -> None:
    """Killed, as by the kernel for want of memory."""
    with tracer.start_as_current_span("render page 1"):
        time.sleep(0.05)
    trace.get_current_span().add_event("page 1 of 900 is rendered")
    os.kill(os.getpid(), signal.SIGKILL)


def tidy_baskets() -> None:
    """Cron's."""
    with tracer.start_as_current_span("delete old baskets"):
        time.sleep(0.03)


def dependents(queue: rq.Queue) -> None:
    """A job, and one that waits for it."""
    queue.enqueue(ship, 7, depends_on=queue.enqueue(pack, 7))


WAYS: dict[str, Callable[[rq.Queue], Any]] = {
    "retry": lambda queue: queue.enqueue(confirm_order, 7, retry=Retry(2)),
    "scheduled": lambda queue: queue.enqueue_in(timedelta(seconds=1), send_reminder, 7),
    "dependents": dependents,
    "callback": lambda queue: queue.enqueue(charge, 7, on_success=Callback(on_charged)),
    "killed": lambda queue: queue.enqueue(render_catalogue, 900),
}

if __name__ == "__main__":
    # By its importable name: what is called `__main__` cannot be found by a worker.
    import jobs

    with tracer.start_as_current_span("place order"):
        jobs.WAYS[sys.argv[1]](rq.Queue(connection=redis.Redis(port=int(sys.argv[2]))))
