"""Jobs under a sampler: who decides, and what remains of a job that was ruled out."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from datetime import timedelta

import pytest
import rq

import chegou_otel
from chegou_otel.testing import capture
from tests.delivery.receiver import wait_for
from tests.integrations.rq.conftest import attributes

pytestmark = pytest.mark.slow


def enqueue(hub, function="hub_jobs.ok", *args, rules=(), **options):
    """A job that a process with these rules enqueued."""
    with capture(sampling=rules), chegou_otel.use_correlation_id("order-0007"):
        return hub.queue().enqueue(function, *args, **options)


def executions(hub):
    found = Counter()
    for (_, labels), number in hub.metric("rq.job.executions").items():
        found[dict(labels)["rq.job.status"]] += number
    return found


def wait_counted(hub, count):
    wait_for(lambda: sum(executions(hub).values()) == count, 20, f"{count} executions counted: {executions(hub)}\n{hub.said()}")


@pytest.mark.parametrize("worker", ["Worker", "SpawnWorker", "SimpleWorker"])
def test_a_job_follows_who_enqueued_it_and_is_counted_all_the_same(hub, worker):
    enqueue(hub, "hub_jobs.ok", "out", rules=["*=0"])
    enqueue(hub, "hub_jobs.ok", "in", rules=["*=1"])
    hub.burst(worker)

    (span,) = hub.wait_jobs(1)
    assert attributes(span)["hub.name"] == "in"
    wait_counted(hub, 2)
    assert executions(hub) == {"finished": 2}
    logs = {body: log for _, body, log in hub.logs}
    assert attributes(logs["ok out"])["correlation_id"] == "order-0007"
    assert logs["ok out"].trace_id
    assert logs["ok out"].span_id
    assert [span for span, _, _ in hub.receiver.spans if span.trace_id == logs["ok out"].trace_id] == []


def test_a_rule_of_the_worker_decides_by_the_job_s_function(hub):
    """Although nothing is unpickled before the fork to learn its name."""
    enqueue(hub, "hub_jobs.ok", "never", rules=["*=1"])
    enqueue(hub, "truth_jobs.ok", rules=["*=0"])
    hub.burst(CHEGOU_OTEL_SAMPLING="job:hub_jobs.*=0, job:truth_*.ok=1")

    (span,) = hub.wait_jobs(1)
    assert attributes(span)["rq.job.function"] == "truth_jobs.ok"


def test_all_runs_of_a_scheduled_job_are_decided_alike(hub):
    """They share a trace, and with it the draw."""
    for _ in range(8):
        with capture():
            hub.queue().enqueue_in(timedelta(seconds=0), "hub_jobs.fail", "x", retry=rq.Retry(max=2))
    scheduler = rq.scheduler.RQScheduler([hub.queue()], connection=hub.redis)
    time.sleep(1.1)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()
    hub.burst(OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.5")
    wait_counted(hub, 24)
    assert executions(hub) == {"retried": 16, "failed": 8}

    runs = {}
    for span in hub.jobs:
        runs.setdefault(attributes(span)["messaging.message.id"], []).append(attributes(span)["rq.job.attempt"])
        assert int.from_bytes(span.trace_id[8:]) < 1 << 63
    assert all(attempts == [1, 2, 3] for attempts in runs.values())


def test_a_failed_job_is_told_where_a_rule_wants_it(hub):
    enqueue(hub, "hub_jobs.fail", "x", rules=["*=0"])
    enqueue(hub, "hub_jobs.ok", "x", rules=["*=0"])
    hub.burst(CHEGOU_OTEL_SAMPLING="errors=1")
    wait_counted(hub, 2)

    (span,) = hub.jobs
    assert attributes(span)["chegou_otel.unsampled"] is True
    assert attributes(span)["error.type"] == "ValueError"
    assert attributes(span)["correlation_id"] == "order-0007"


@pytest.mark.parametrize("rules", ["", "errors=1"])
@pytest.mark.parametrize("job", ["kills_itself", "leaves"])
def test_an_unsampled_job_that_is_killed_is_counted_and_said(hub, job, rules):
    outcome = {"kills_itself": "killed", "leaves": "vanished"}[job]
    enqueue(hub, f"truth_jobs.{job}", *([0] if job == "leaves" else []), rules=["*=0"])
    hub.burst(CHEGOU_OTEL_SAMPLING=rules)
    wait_counted(hub, 1)

    assert executions(hub) == {outcome: 1}
    said = [log for _, _, log in hub.logs if log.event_name == "rq.job.ended"]
    if rules:
        (span,) = hub.wait_jobs(1)
        assert said == []
        assert (attributes(span)["rq.job.status"], attributes(span)["chegou_otel.unsampled"]) == (outcome, True)
        return
    (log,) = said
    assert hub.jobs == []
    told = attributes(log)
    assert (told["rq.job.status"], told["rq.job.function"], told["correlation_id"]) == (outcome, f"truth_jobs.{job}", "order-0007")
    assert told["messaging.message.id"]


def test_an_unsampled_job_whose_worker_was_killed_too_is_counted_by_the_next_process(hub, tmp_path):
    path = tmp_path / "running"
    enqueue(hub, "truth_jobs.waits", str(path), rules=["*=0"], job_timeout=120)
    worker = hub.start("truth_work.py", "Worker")
    wait_for(lambda: path.exists() and path.read_text(), 30, f"the job\n{hub.said()}")
    worker.kill()
    worker.wait()
    os.kill(int(path.read_text()), signal.SIGKILL)
    hub.work("truth_work.py", "next")
    wait_counted(hub, 1)

    assert executions(hub) == {"vanished": 1}
    (log,) = [log for _, _, log in hub.logs if log.event_name == "rq.job.ended"]
    assert attributes(log)["correlation_id"] == "order-0007"
    assert hub.jobs == []


def test_a_killed_job_that_was_sampled_is_told_whatever_the_next_draw_says(hub):
    enqueue(hub, "truth_jobs.kills_itself", rules=["*=1"])
    hub.burst(CHEGOU_OTEL_SAMPLING="*=0")

    (span,) = hub.wait_jobs(1)
    assert attributes(span)["rq.job.status"] == "killed"
