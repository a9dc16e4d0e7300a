"""A job that never ran has no span, but a count and a log event in its originator's story."""

from __future__ import annotations

from datetime import timedelta

import pytest
import rq
from rq.worker import SimpleWorker

import chegou_otel


@pytest.fixture
def queue(redis_client):
    return rq.Queue(connection=redis_client)


def events(telemetry):
    return [log for log in telemetry.logs if log.logger == "chegou_otel.rq"]


def counted(telemetry):
    metric = telemetry.metrics.get("rq.job.not_run")
    return {point.attributes["rq.job.status"]: point.value for point in metric.points} if metric else {}


def test_a_job_cancelled_in_its_queue(telemetry, queue):
    with chegou_otel.use_correlation_id("order-0001"):
        job = queue.enqueue("truth_jobs.fails", "hunter2secret")
    rq.job.Job.fetch(job.id, connection=queue.connection).cancel()

    (event,) = events(telemetry)
    sent = telemetry.span("send default")
    assert (event.event_name, event.body, event.severity_text) == ("rq.job.not_run", "the job was cancelled before it ran", "INFO")
    assert (event.trace_id, event.span_id, event.correlation_id) == (sent.trace_id, sent.span_id, "order-0001")
    assert event.attributes["messaging.message.id"] == job.id
    assert (event.attributes["rq.job.function"], event.attributes["rq.job.status"]) == ("truth_jobs.fails", "canceled")
    assert counted(telemetry) == {"canceled": 1}
    assert telemetry.jobs == []
    telemetry.assert_no_leak("hunter2secret")


def test_a_deferred_dependent_and_a_scheduled_job_that_are_cancelled(telemetry, queue):
    first = queue.enqueue("truth_jobs.ok")
    queue.enqueue("truth_jobs.ok", depends_on=first).cancel()
    queue.enqueue_in(timedelta(hours=1), "truth_jobs.ok").cancel()

    assert counted(telemetry) == {"canceled": 2}


def test_a_job_that_has_run_is_not_counted_when_it_is_cancelled(telemetry, queue):
    job = queue.enqueue("truth_jobs.ok")
    SimpleWorker([queue], connection=queue.connection).work(burst=True)
    rq.job.Job.fetch(job.id, connection=queue.connection).cancel()

    assert counted(telemetry) == {}
    assert len(telemetry.jobs) == 1


def test_a_refused_cancellation_counts_nothing(telemetry, queue):
    job = queue.enqueue("truth_jobs.ok")
    job.cancel()
    with pytest.raises(rq.exceptions.InvalidJobOperation):
        job.cancel()

    assert counted(telemetry) == {"canceled": 1}


@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_lost_between_queue_and_worker(telemetry, queue, retries):
    """Its worker took it from the queue and died before it was started; maintenance finds it after a minute."""
    job = queue.enqueue("truth_jobs.ok", retry=rq.Retry(max=1) if retries else None)
    connection = queue.connection
    connection.lrem(queue.key, 1, job.id)
    connection.lpush(queue.intermediate_queue_key, job.id)
    worker = SimpleWorker([queue], connection=connection)
    queue.intermediate_queue.cleanup(worker, queue)
    connection.set(queue.intermediate_queue.get_first_seen_key(job.id), 0)
    queue.intermediate_queue.cleanup(worker, queue)

    if retries:  # it is queued again: nothing came to an end
        assert counted(telemetry) == {}
        return
    (event,) = events(telemetry)
    assert (event.body, event.severity_text) == ("the job was lost on its way from the queue to a worker", "ERROR")
    assert counted(telemetry) == {"lost": 1}
    assert telemetry.jobs == []
