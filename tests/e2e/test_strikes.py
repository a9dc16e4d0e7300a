"""Time-outs and stop requests that strike a job inside our code take effect as on bare RQ, whoever the worker is.

The job does nothing but call into telemetry, so that they strike there. `tests/integrations/rq/test_alarms.py` strikes a thousand times.
"""

from __future__ import annotations

import signal
import time

import pytest
import rq

from tests.delivery.receiver import Receiver, wait_for
from tests.e2e.accounting import Floor, attributes

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(120)]

CLASSES = ("Worker", "SpawnWorker", "SimpleWorker")


@pytest.fixture
def floor(redis_port, tmp_path):
    receiver = Receiver()
    made = Floor(tmp_path, redis_port, receiver.url)
    made.receiver = receiver
    yield made
    made.close()
    receiver.close()


class Seen:
    """What became of a job, as RQ and as its span tell it."""

    def __init__(self, floor, job, pid):
        fetched = rq.job.Job.fetch(job, connection=floor.redis)
        self.status = str(getattr(fetched.get_status(), "value", fetched.get_status()))
        self.why = (fetched.latest_result().exc_string or "").strip().splitlines()[-1].partition(":")[0]
        self.seconds = (fetched.ended_at - fetched.started_at).total_seconds() if fetched.ended_at else 0.0
        self.told = [attributes(span)["rq.job.status"] for span, _, _ in floor.receiver.spans if span.kind == 5]


def run(floor, name, strike, **env):
    """The job's end after ``strike(worker, job, note)``, with telemetry or, by FLOOR_NO_SETUP, as on bare RQ."""
    (job,) = floor.enqueue("busy_1s" if strike is None else "busy")
    worker = floor.work(name, **env)
    note = floor.wait_note("busy", len(floor.jobs))
    if strike is not None:
        strike(worker, job)
    ended = lambda: rq.job.Job.fetch(job, connection=floor.redis).get_status() in ("failed", "stopped")  # noqa: E731
    wait_for(ended, 30, f"the job's end\n{floor.said()}")
    floor.wait_idle_or_gone(worker)
    if worker.poll() is None:
        floor.terminate(worker)
    return Seen(floor, job, note["pid"])


def both(floor, name, strike):
    ours, bare = run(floor, name, strike), run(floor, name, strike, FLOOR_NO_SETUP="1")
    assert (ours.status, ours.why) == (bare.status, bare.why)
    return ours


@pytest.mark.parametrize("name", CLASSES)
def test_a_time_out_strikes(floor, name):
    ours = both(floor, name, None)

    assert (ours.status, ours.why, ours.told) == ("failed", "rq.timeouts.JobTimeoutException", ["timed_out"])
    assert ours.seconds < 3


@pytest.mark.parametrize("name", ["Worker", "SpawnWorker"])
def test_a_stop_request_strikes(floor, name):
    ours = both(floor, name, lambda worker, job: rq.command.send_stop_job_command(floor.redis, job))

    assert (ours.status, ours.told) == ("stopped", ["stopped"])


def test_a_stop_request_does_not_concern_a_simple_worker(floor):
    """As on bare RQ: it is noted, and the job goes on to its time-out."""
    (job,) = floor.enqueue("busy_3s")
    worker = floor.work("SimpleWorker")
    floor.wait_note("busy")
    rq.command.send_stop_job_command(floor.redis, job)
    time.sleep(0.5)
    assert rq.job.Job.fetch(job, connection=floor.redis).get_status() == "started"
    wait_for(lambda: rq.job.Job.fetch(job, connection=floor.redis).get_status() != "started", 20, f"the time-out\n{floor.said()}")
    floor.wait_idle_or_gone(worker)
    floor.terminate(worker)

    assert [attributes(span)["rq.job.status"] for span, _, _ in floor.receiver.spans if span.kind == 5] in (["timed_out"], ["stopped"])


def test_an_imminent_shutdown_strikes(floor):
    """HerokuWorker raises ShutDownImminentException in the work-horse."""
    ours = both(floor, "HerokuWorker", lambda worker, _: worker.send_signal(signal.SIGTERM))

    assert (ours.status, ours.why, ours.told) == ("failed", "rq.exceptions.ShutDownImminentException", ["failed"])


def test_a_cold_shutdown_of_a_simple_worker_strikes(floor):
    """SystemExit, out of RQ's signal handler, in the job's own frames."""

    def strike(worker, _):
        worker.send_signal(signal.SIGTERM)
        time.sleep(1.2)
        worker.send_signal(signal.SIGTERM)

    ours = both(floor, "SimpleWorker", strike)

    assert (ours.status, ours.why, ours.told) == ("failed", "SystemExit", ["failed"])
