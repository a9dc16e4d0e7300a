"""Enqueueing: one producer span per job, and what travels with it."""

from __future__ import annotations

from datetime import timedelta

import hub_jobs
import pytest
import rq

import chegou_otel
from chegou_otel.integrations.rq import carrier


@pytest.fixture
def queue(telemetry, redis_client):
    telemetry.clear()
    return rq.Queue(connection=redis_client)


def test_an_enqueue_is_one_producer_span_and_rq_s_own_commands_are_none(telemetry, queue):
    with chegou_otel.use_correlation_id("order-0001"):
        job = queue.enqueue(hub_jobs.ok, "x")

    span = telemetry.span("send default")
    assert (span.kind, span.correlation_id, span.attributes["messaging.message.id"]) == ("PRODUCER", "order-0001", job.id)
    assert (span.attributes["messaging.system"], span.attributes["messaging.destination.name"]) == ("rq", "default")
    assert span.attributes["rq.job.function"] == "hub_jobs.ok"
    assert telemetry.span_names() == ["send default"]


def test_the_carrier_lies_in_the_job_s_hash_and_survives_what_users_do_to_meta(telemetry, queue, redis_client):
    with chegou_otel.use_correlation_id("order-0002"):
        job = queue.enqueue(hub_jobs.ok, "x", retry=rq.Retry(max=3))
    job.meta = {"mine": 1}
    job.save_meta()
    job.save()
    fetched = rq.job.Job.fetch(job.id, connection=redis_client)

    found = carrier.of(fetched)
    span = telemetry.span("send default")
    assert (found.trace_id, found.span_id, found.correlation_id, found.retries, found.shape) == (
        span.trace_id,
        span.span_id,
        "order-0002",
        3,
        "parent",
    )
    assert fetched.meta == {"mine": 1}


def test_without_an_originator_the_id_is_made_at_enqueue(telemetry, queue):
    job = queue.enqueue(hub_jobs.ok, "x")

    assert carrier.of(job).correlation_id == telemetry.span("send default").correlation_id


@pytest.mark.parametrize(
    ("enqueue", "spans", "shape"),
    [
        (lambda q: q.enqueue_call(hub_jobs.ok, ("x",)), 1, "parent"),
        (lambda q: q.enqueue_many([rq.Queue.prepare_data(hub_jobs.ok, ("a",)), rq.Queue.prepare_data(hub_jobs.ok, ("b",))]), 2, "parent"),
        (lambda q: q.enqueue_in(timedelta(hours=1), hub_jobs.ok, "x"), 1, "link"),
        (lambda q: q.enqueue_job(rq.job.Job.create(hub_jobs.ok, ("x",), connection=q.connection)), 1, "parent"),
    ],
    ids=["enqueue_call", "enqueue_many", "enqueue_in", "enqueue_job"],
)
def test_every_way_in_makes_a_span_per_job(telemetry, queue, enqueue, spans, shape):
    made = enqueue(queue)
    jobs = made if isinstance(made, list) else [made]

    assert telemetry.span_names() == ["send default"] * spans
    assert [carrier.of(job).shape for job in jobs] == [shape] * spans


def test_a_re_enqueue_keeps_the_originator_and_makes_no_span(telemetry, queue, redis_client):
    job = queue.enqueue(hub_jobs.ok, "x")
    before = carrier.of(job)
    again = rq.job.Job.fetch(job.id, connection=redis_client)
    telemetry.clear()
    queue._enqueue_job(again)
    assert telemetry.spans == []

    assert carrier.of(rq.job.Job.fetch(job.id, connection=redis_client)) == before


@pytest.mark.parametrize(
    ("enqueue", "outcomes", "traces"),
    [
        (lambda q: q.enqueue(hub_jobs.ok, "x", repeat=rq.Repeat(times=1)), ["finished", "finished"], 2),
        (lambda q: q.enqueue(hub_jobs.returns_a_retry), ["retried", "finished"], 1),
    ],
    ids=["repeat", "a Retry that is returned"],
)
def test_what_waits_for_its_next_run_was_finished_unless_it_asked_for_another_try(telemetry, queue, enqueue, outcomes, traces):
    enqueue(queue)
    rq.SimpleWorker([queue], connection=queue.connection).work(burst=True)

    assert [job.attributes["rq.job.status"] for job in telemetry.jobs] == outcomes
    assert len(telemetry.trace_ids()) == traces


def test_a_dependent_keeps_the_story_in_which_it_was_enqueued(telemetry, queue):
    with chegou_otel.use_correlation_id("order-0008"):
        first = queue.enqueue(hub_jobs.ok, "x")
    with chegou_otel.use_correlation_id("order-0009"):
        queue.enqueue(hub_jobs.ok, "y", depends_on=first)
    rq.SimpleWorker([queue], connection=queue.connection).work(burst=True)

    assert [job.correlation_id for job in telemetry.jobs] == ["order-0008", "order-0009"]


def test_arguments_are_never_recorded(telemetry, queue):
    queue.enqueue(hub_jobs.ok, "jane@example.org")

    telemetry.assert_no_leak("jane@example.org")


def test_an_enqueue_that_fails_is_told_and_raised(telemetry, queue):
    import redis

    broken = rq.Queue(connection=redis.Redis(port=1))
    with pytest.raises(redis.ConnectionError):
        broken.enqueue(hub_jobs.ok, "x")

    assert telemetry.span("send default").status == "ERROR"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "2;a;b;00;order-0001;0;parent",
        "1;zz;zz;00;order-0001;0;parent;",
        "1;x;y;zz;order-0001;0;parent",
        "1;;;00;bad id;0;parent",
        "\x00",
    ],
)
def test_a_foreign_carrier_is_no_carrier(text):
    found = carrier.decode(text)

    assert found is None or found.span_context is None


def test_after_shutdown_rq_is_as_it_was(redis_client):
    from chegou_otel.testing import capture

    before = (rq.Queue.enqueue_job, rq.job.Job.to_dict, rq.worker.base.BaseWorker.perform_job)
    with capture():
        assert rq.Queue.enqueue_job is not before[0]
    assert (rq.Queue.enqueue_job, rq.job.Job.to_dict, rq.worker.base.BaseWorker.perform_job) == before
