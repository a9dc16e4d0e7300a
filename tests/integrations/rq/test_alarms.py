"""RQ's time-outs strike in whatever code runs, ours included: every one of them reaches RQ, and nothing is left half done."""

from __future__ import annotations

import contextvars
import gc
import itertools
import logging
import random
import signal
import sqlite3
import threading
import time
import traceback

import pytest
import rq
from opentelemetry import metrics, trace
from rq.timeouts import HorseMonitorTimeoutException, JobTimeoutException

from chegou_otel import _setup
from chegou_otel.delivery.frames import Kind
from chegou_otel.integrations.rq.executions import Executions
from chegou_otel.integrations.rq.listener import Listener
from chegou_otel.integrations.rq.teller import Teller
from chegou_otel.integrations.rq.workhorse import Horses
from tests.delivery.receiver import Receiver
from tests.integrations.rq.conftest import attributes

ALARMS = 1_000


@pytest.fixture
def telemetry(tmp_path):
    """The real thing: segments on disk, a courier, a receiver."""
    receiver = Receiver()
    started = _setup.start(
        {"active": "always", "service_name": "alarms", "endpoint": receiver.url, "spool_dir": str(tmp_path), "exit_timeout": 5.0}
    )
    started.receiver = receiver
    yield started
    started.shutdown()
    receiver.close()


def strike(work, error, alarms):
    """Let ``alarms`` alarms raise ``error`` at random moments of ``work``; how many came out of it."""
    rng, reached, where = random.Random(7), 0, []

    def ring(_number, frame):
        where[:] = traceback.format_stack(frame, 8)
        raise error("out of time")

    before = signal.signal(signal.SIGALRM, ring)
    gc.disable()  # what strikes inside a finalizer is lost to anybody, on bare RQ too
    try:
        for _ in range(alarms):
            try:
                # In a call of its own: what is raised at a loop's jump back is outside of the loop's own ``try`` in Python 3.13.
                contextvars.copy_context().run(until_struck, work, rng.uniform(0.000_02, 0.003))
                print("swallowed in:", "".join(where), sep="\n")
            except error:
                reached += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)
    return reached


def until_struck(work, delay):
    deadline = time.monotonic() + 5
    signal.setitimer(signal.ITIMER_REAL, delay)
    while time.monotonic() < deadline:
        work()


def works_still(telemetry):
    """Another thread can record (no lock is left held), and what is recorded arrives."""
    done = threading.Event()

    def record():
        trace.get_tracer("x").start_span("after the storm").end()
        done.set()

    threading.Thread(target=record, daemon=True).start()
    assert done.wait(5), "the recorder's lock is still held"
    assert telemetry.flush(20)
    assert "after the storm" in telemetry.receiver.names()
    account = telemetry.runtime.recorder.ledger()["traces"]
    assert account.created == account.delivered + account.rejected + sum(account.dropped.values())


def test_in_the_job_s_own_code(telemetry, monkeypatch):
    """Spans, statements, logs and counters, as a job makes them."""
    tracer, counter = trace.get_tracer("hub"), metrics.get_meter("hub").create_counter("hits")
    logger = logging.getLogger("alarms.job")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(logging, "logMultiprocessing", False)  # the standard library swallows what strikes there, on bare RQ too
    connection = sqlite3.connect(":memory:")

    def work():
        with tracer.start_as_current_span("work") as span:
            span.set_attribute("n", 1)
            connection.execute("select 1")
            logger.info("working %s", 1)
            counter.add(1)

    assert strike(work, JobTimeoutException, ALARMS) == ALARMS
    works_still(telemetry)


class Running:
    """An execution and its worker, as RQ's are, without asking Redis for them: redis-py swallows alarms of its own."""

    def __init__(self):
        self.id = "execution-0"
        self.name = "worker-1"
        self._stopped_job_id = None

    @property
    def execution(self):
        return self


@pytest.fixture
def job(redis_client):
    made = rq.job.Job.create("hub_jobs.ok", ("x",), connection=redis_client)
    made.id  # noqa: B018 - made on first use
    made._status = "finished"
    return made


def test_around_an_execution_in_a_simple_worker(telemetry, redis_client, job):
    """``perform_job``'s hooks, with RQ's own code between them left out."""
    executions, queue = Executions(telemetry.runtime), rq.Queue(connection=redis_client)
    perform = executions._make_perform_job(lambda worker, job, queue: True)

    assert strike(lambda: perform(Running(), job, queue), JobTimeoutException, ALARMS) == ALARMS
    works_still(telemetry)


def test_in_a_work_horse_s_hand_over(telemetry, redis_client, job):
    """What a work-horse writes of its execution: a beginning, changes, an outcome."""
    runtime = telemetry.runtime
    executions, queue, running, numbers = Executions(runtime), rq.Queue(connection=redis_client), Running(), itertools.count()
    executions.teller = Teller(runtime)
    runtime.recorder.handlers[Kind.JOB_CHANGE] = runtime.recorder.handlers[Kind.OUTCOME] = lambda payload: None

    def work():
        running.id = f"execution-{next(numbers)}"
        execution = executions.begin(running, job, queue)
        if execution is not None:
            execution.span.set_attribute("n", 1)
            execution.end("finished")

    assert strike(work, JobTimeoutException, ALARMS) == ALARMS
    works_still(telemetry)


def test_in_the_parent_between_two_jobs(telemetry, redis_client, job):
    """Reserve, drain, settle: RQ's monitor alarm may strike there too."""
    executions, queue, running = Executions(telemetry.runtime), rq.Queue(connection=redis_client), Running()
    horses = Horses(telemetry.runtime, executions, Listener(telemetry.runtime, executions), rq.worker)

    def work():
        horses.reserve(running, job)
        horses.after(running, job, queue, *horses.seen(running, job, None))

    assert strike(work, HorseMonitorTimeoutException, ALARMS) == ALARMS
    works_still(telemetry)


def test_in_the_parent_that_makes_ready_and_tells_what_was_left(telemetry, redis_client, job):
    executions, queue, running = Executions(telemetry.runtime), rq.Queue(connection=redis_client), Running()

    def work():
        executions.prepare(running, job, queue)
        now = time.time_ns()
        executions.tell_left(executions.prepared, "finished", now, now, {"rq.job.cpu_time": 0.5})

    assert strike(work, HorseMonitorTimeoutException, ALARMS) == ALARMS
    works_still(telemetry)


def test_a_job_that_runs_into_its_timeout_inside_our_code_ends_as_on_bare_rq(hub):
    """One real worker, one real alarm, and a job that does nothing but call into our hooks."""
    hub.queue().enqueue("hub_jobs.busy", job_timeout=1)
    started = time.monotonic()
    hub.burst("Worker")

    assert time.monotonic() - started < 15
    (span,) = hub.wait_jobs(1)
    assert attributes(span)["rq.job.status"] == "timed_out"
