"""Metrics as deltas: what many work-horses measured is told once, also by workers that are killed, and leads to the jobs' traces."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter

import pytest

from tests.delivery.receiver import wait_for
from tests.integrations.rq.conftest import attributes

DELTA = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
THEIRS = ("hub.counted", "hub.sizes")
OURS = ("rq.job.executions", "messaging.process.duration", "rq.job.queue_wait")


def deltas(hub):
    """What all points of an instrument add up to, over all instances, and when they end; a point that came twice is one."""
    points = {}
    for metric, _, resource in list(hub.receiver.metrics):
        if metric.name not in (*THEIRS, *OURS):
            continue
        for data in (metric.sum, metric.histogram):
            for point in data.data_points:
                assert data.aggregation_temporality == 1, metric.name
                key = (metric.name, attributes(resource)["service.instance.id"], *sorted(attributes(point).items()))
                number = point.count if metric.HasField("histogram") else (point.as_int or point.as_double)
                points[key, point.start_time_unix_nano, point.time_unix_nano] = (metric.name, number)
    found = Counter()
    for name, number in points.values():
        found[name] += number
    return found, {end for _, _, end in points}


def test_what_work_horses_measure_between_many_collections_adds_up(hub):
    jobs = 30
    for _ in range(jobs):
        enqueue(hub, 1)
        hub.queue().enqueue("time.sleep", 0.08)
    hub.burst(**DELTA, OTEL_METRIC_EXPORT_INTERVAL="100")
    hub.wait_jobs(2 * jobs)

    found, ends = deltas(hub)
    assert {name: found[name] for name in THEIRS} == dict.fromkeys(THEIRS, jobs)
    assert {name: found[name] for name in OURS} == dict.fromkeys(OURS, 2 * jobs)
    assert len(ends) > 2


def test_a_slow_job_s_bucket_leads_to_its_trace(hub):
    for seconds in (0, 0, 0.6):
        hub.queue().enqueue("time.sleep", seconds)
    hub.burst()
    spans = {(span.trace_id, span.span_id): span for span in hub.wait_jobs(3)}

    metrics = [metric for metric, _, _ in hub.receiver.metrics if metric.name == "messaging.process.duration"]
    exemplars = [exemplar for metric in metrics for point in metric.histogram.data_points for exemplar in point.exemplars]
    (slow,) = [exemplar for exemplar in exemplars if exemplar.as_double >= 0.6]
    span = spans[slow.trace_id, slow.span_id]
    assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 >= 0.6
    assert {(exemplar.trace_id, exemplar.span_id) for exemplar in exemplars} <= spans.keys()


def enqueue(hub, jobs):
    for _ in range(jobs):
        hub.queue().enqueue("measured_jobs.counted")


def idle(hub, worker, done):
    if hub.queue().finished_job_registry.count < done:
        return False
    known = [hub.redis.hmget(key, "pid", "state") for key in hub.redis.smembers("rq:workers")]
    return [state for pid, state in known if pid and int(pid) == worker.pid] == [b"idle"]


@pytest.mark.slow
def test_workers_that_are_killed_between_two_collections_lose_and_double_nothing(hub):
    """What they had added up lies in their journals, and goes out with the next process."""
    rounds, jobs = 3, 4
    for number in range(rounds):
        worker = hub.start("work.py", "Worker", **DELTA, OTEL_METRIC_EXPORT_INTERVAL="1000")
        done = 2 * jobs * number + jobs
        enqueue(hub, jobs)
        wait_for(lambda done=done: deltas(hub)[0]["hub.counted"] >= done, 40, f"deltas of {done} jobs\n{hub.said()}")
        enqueue(hub, jobs)
        # Idle: what the work-horses measured was handed over.
        wait_for(lambda done=done, worker=worker: idle(hub, worker, done + jobs), 40, f"{done + jobs} jobs\n{hub.said()}")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    hub.burst(**DELTA)

    found, _ = deltas(hub)
    told = (*THEIRS, "rq.job.executions")
    assert {name: found[name] for name in told} == dict.fromkeys(told, 2 * rounds * jobs)
