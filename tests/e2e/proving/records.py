"""Numbered records: each is noted, unbuffered, after the call that records it came back. What is noted was complete."""

import itertools
import logging
import os
import time

from opentelemetry import trace

logger = logging.getLogger("shop")
_numbers = itertools.count()
_notes = os.open(os.environ["SHOP_NOTES"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


def _name():
    return f"n.{os.getpid()}.{next(_numbers)}"


def note(text):
    os.write(_notes, f"{text}\n".encode())


def log():
    name = _name()
    logger.warning("%s", name)
    note(f"log {name}")


def span(inner=None):
    name = _name()
    with trace.get_tracer("shop").start_as_current_span(name) as span:
        if inner is not None:
            inner()
            note(f"sql {span.get_span_context().span_id:016x}")
    note(f"span {name}")


def work(seconds):
    """A job that records for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        log()
        span()
    note(f"done {os.getpid()}")


def work_in_bursts(seconds):
    """As ``work``, and leaves the machine to others in between."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(5):
            log()
            span()
        time.sleep(0.01)
    note(f"done {os.getpid()}")


def script(then):
    """A program that records, says so, and ends as it is told."""
    for _ in range(50):
        log()
        span()
    note(f"done {os.getpid()}")
    while then == "wait":
        time.sleep(0.05)


def tell(what):
    """A job: in the work-horse, and in a process that it starts."""
    import multiprocessing

    logger.warning("job %s", what)
    if what == "fail":
        raise ValueError("the job failed")
    if what == "multiprocessing":
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2, -3])
    return what


def next_process():
    """What the next process of the service does: it records something of its own, and takes over what lies there."""
    import chegou_otel

    log()
    print(chegou_otel._setup._current.flush(20))
