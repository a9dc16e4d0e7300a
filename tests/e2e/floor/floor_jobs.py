"""One job per way to end. What each recorded is noted, unbuffered, before it ends: what is noted was complete."""

import json
import logging
import os
import signal
import sys
import time
import uuid

if "FLOOR_SETUP_IN_JOBS" in os.environ:
    import floor_settings  # noqa: F401 - a `setup()` in it runs where the jobs are imported

import rq
from opentelemetry import metrics, trace

import chegou_otel

logger = logging.getLogger("floor.jobs")
_notes = os.open(os.environ["FLOOR_NOTES"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
LINES = 2


def note(**what):
    os.write(_notes, (json.dumps(what) + "\n").encode())


def wait_for_notes(text, count, seconds=40):
    """Until so many are noted, by whichever process."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with open(os.environ["FLOOR_NOTES"]) as file:
            if file.read().count(text) >= count:
                return
        time.sleep(0.02)
    raise TimeoutError(f"{count} notes of {text} did not come")


def record(ending):
    """Every signal once: lines, a counter, a histogram, an inner span, something on the job's own span."""
    key, job, span = uuid.uuid4().hex[:12], rq.get_current_job(), trace.get_current_span()
    for number in range(LINES):
        logger.warning("%s line %d of %s", key, number, ending)
    meter = metrics.get_meter("floor")
    meter.create_counter("floor.ran").add(1, {"ending": ending})
    meter.create_histogram("floor.size").record(5, {"ending": ending})
    with trace.get_tracer("floor").start_as_current_span(f"inner {key}"):
        pass
    span.set_attribute("floor.key", key)
    span.add_event("recorded")
    context = span.get_span_context()
    note(
        ending=ending, key=key, job=job.id, pid=os.getpid(), parent=os.getppid(), correlation=chegou_otel.get_correlation_id(),
        trace=f"{context.trace_id:032x}", span=f"{context.span_id:016x}",
    )  # fmt: skip


def finished():
    record("finished")


def tiny():
    record("tiny")


def first():
    record("first")


def before_cancelled():
    record("before_cancelled")


def dependent():
    record("dependent")


def cancelled():
    record("cancelled")


def failed():
    record("failed")
    raise ValueError("no luck")


def retried():
    record("retried")
    if rq.get_current_job().retries_left:
        raise RuntimeError("first time")


def returned():
    record("returned")
    return None if rq.get_current_job().number_of_retries else rq.Retry(max=1)


def timed_out():
    record("timed_out")
    signal.alarm(1)  # RQ's own alarm, brought forward: a second for all of the job is too short where `setup()` runs in it
    time.sleep(30)


def stopped():
    record("stopped")
    time.sleep(30)


def killed():
    record("killed")
    os.kill(os.getpid(), signal.SIGKILL)


def exit_0():
    record("exit_0")
    os._exit(0)


def exit_1():
    record("exit_1")
    os._exit(1)


def sys_exit():
    record("sys_exit")
    sys.exit(3)


def warm():
    record("warm")
    time.sleep(0.6)


def imminent():
    record("imminent")
    time.sleep(30)


def cold():
    record("cold")
    time.sleep(30)


def abandoned():
    record("abandoned")
    time.sleep(30)


def orphan():
    """Goes on when its parent is gone."""
    record("orphan")
    time.sleep(0.5)
    note(ending="orphan done", pid=os.getpid())


def orphan_retried():
    """The first run outlives its worker; the second runs beside it."""
    record("orphan_retried")
    if rq.get_current_job().retries_left:
        wait_for_notes('"orphan_retried"', 2)
        time.sleep(0.3)
    note(ending="orphan_retried done", pid=os.getpid())


def busy():
    """Nothing but calls into telemetry, until something from outside ends it."""
    record("busy")
    while "FLOOR_NO_SETUP" in os.environ:
        pass  # the API's own no-op spans swallow what strikes in them
    logging.logMultiprocessing = False  # the standard library swallows what strikes there
    tracer, counter = trace.get_tracer("floor"), metrics.get_meter("floor").create_counter("floor.busy")
    quiet = logging.getLogger("floor.busy")
    quiet.propagate, quiet.level = False, logging.INFO
    while True:
        with tracer.start_as_current_span("busy") as span:
            span.set_attribute("n", 1)
            quiet.info("busy")
            counter.add(1)
