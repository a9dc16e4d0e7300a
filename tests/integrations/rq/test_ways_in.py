"""Every way into a queue: one producer span when a queue first takes the job, none when it comes again, and what it carries."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime, timedelta

import hub_jobs
import odd_jobs
import pytest
import redis
import rq
from rq.decorators import job as job_decorator
from rq.exceptions import DuplicateJobError
from rq.group import Group
from rq.job import Job

import chegou_otel
from chegou_otel.integrations.rq import carrier
from tests.integrations.rq.ways import run, run_all, stored

RQ3 = int(rq.__version__.split(".")[0]) >= 3
only_rq3 = pytest.mark.skipif(not RQ3, reason="rate limits came with RQ 3")


@pytest.fixture
def queue(telemetry, redis_client):
    telemetry.clear()
    return rq.Queue(connection=redis_client)


def prepared(*args, **options):
    return rq.Queue.prepare_data(hub_jobs.ok, args, **options)


def delayed(queue):
    return job_decorator(queue, connection=queue.connection)(hub_jobs.ok).delay("x")


def waits_for(queue, **options):
    first = queue.enqueue(hub_jobs.ok, "x")
    return [first, queue.enqueue(hub_jobs.ok, "y", depends_on=rq.job.Dependency(first, **options))]


def many_that_wait(queue):
    first = queue.enqueue(hub_jobs.ok, "x", job_id="first")
    return [first, *queue.enqueue_many([prepared("a"), prepared("b", depends_on=[first])])]


def many_that_need_not_wait(queue):
    first = queue.enqueue(hub_jobs.ok, "x", job_id="first")
    run(queue)
    return [first, *queue.enqueue_many([prepared("b", depends_on=[first])])]


def grouped(queue):
    return Group.create(connection=queue.connection).enqueue_many(queue, [prepared("a"), prepared("b")])


def limited(queue):
    from rq.rate_limit import RateLimit

    return [queue.enqueue(hub_jobs.ok, n, rate_limit=RateLimit("one-by-one", 1)) for n in "abc"]


def limited_later(queue):
    from rq.rate_limit import RateLimit

    return queue.enqueue_in(timedelta(hours=1), hub_jobs.ok, "x", rate_limit=RateLimit("one-by-one", 1))


def scheduled_by_hand(queue):
    return queue.schedule_job(queue.create_job(hub_jobs.ok, ("x",)), datetime.now(UTC) + timedelta(hours=1))


#: name: how, and how many runs its jobs make all in all.
WAYS = {
    "enqueue": (lambda q: q.enqueue(hub_jobs.ok, "x"), 1),
    "by name": (lambda q: q.enqueue("hub_jobs.ok", "x"), 1),
    "enqueue_call": (lambda q: q.enqueue_call(hub_jobs.ok, ("x",)), 1),
    "enqueue_many": (lambda q: q.enqueue_many([prepared("a"), prepared("b")]), 2),
    "enqueue_many, waiting": (many_that_wait, 3),
    "enqueue_many, not waiting": (many_that_need_not_wait, 2),
    "enqueue_job": (lambda q: q.enqueue_job(Job.create(hub_jobs.ok, ("x",), connection=q.connection)), 1),
    "enqueue_at": (lambda q: q.enqueue_at(datetime.now(UTC) + timedelta(hours=1), hub_jobs.ok, "x"), 1),
    "enqueue_in": (lambda q: q.enqueue_in(timedelta(hours=1), hub_jobs.ok, "x"), 1),
    "schedule_job": (scheduled_by_hand, 1),
    "delay": (delayed, 1),
    "unique": (lambda q: q.enqueue(hub_jobs.ok, "x", job_id="one", unique=True), 1),
    "unique, scheduled": (lambda q: q.enqueue_in(timedelta(hours=1), hub_jobs.ok, "x", job_id="one", unique=True), 1),
    "dependency": (waits_for, 2),
    "dependency that may fail": (lambda q: waits_for(q, allow_failure=True), 2),
    "retry": (lambda q: q.enqueue(hub_jobs.fail, "x", retry=rq.Retry(max=2)), 3),
    "retry, delayed": (lambda q: q.enqueue(hub_jobs.fail, "x", retry=rq.Retry(max=1, interval=60)), 2),
    "retry, returned": (lambda q: q.enqueue(hub_jobs.returns_a_retry), 2),
    "repeat": (lambda q: q.enqueue(hub_jobs.ok, "x", repeat=rq.Repeat(times=2)), 3),
    "repeat, delayed": (lambda q: q.enqueue(hub_jobs.ok, "x", repeat=rq.Repeat(times=1, interval=60)), 2),
    "callbacks": (
        lambda q: q.enqueue(hub_jobs.ok, "x", on_success=rq.Callback(hub_jobs.succeeded), on_failure=rq.Callback(hub_jobs.failed)),
        1,
    ),
    "group": (grouped, 2),
    "rate limit": pytest.param(limited, 3, marks=only_rq3),
    "rate limit, scheduled": pytest.param(limited_later, 1, marks=only_rq3),
}


@pytest.mark.parametrize(
    ("enqueue", "runs"), [way if isinstance(way, type(pytest.param())) else pytest.param(*way) for way in WAYS.values()], ids=list(WAYS)
)
def test_one_producer_span_per_job_and_none_when_it_comes_again(telemetry, queue, enqueue, runs):
    with chegou_otel.use_correlation_id("order-0001"):
        made = enqueue(queue)
    jobs = made if isinstance(made, list) else [made]
    sent = [span for span in telemetry.spans if span.kind == "PRODUCER"]

    assert sorted(span.attributes["messaging.message.id"] for span in sent) == sorted(job.id for job in jobs)
    assert {span.attributes["rq.job.function"] for span in sent} <= {"hub_jobs.ok", "hub_jobs.fail", "hub_jobs.returns_a_retry"}
    assert {stored(queue, job).span_id for job in jobs} == {span.span_id for span in sent}
    assert {stored(queue, job).correlation_id for job in jobs} == {"order-0001"}

    run_all(queue)
    assert len(telemetry.jobs) == runs
    assert {span.correlation_id for span in telemetry.jobs} == {"order-0001"}
    names = [name for name in telemetry.span_names() if name != "INCRBY"]
    assert names.count("send default") == len(jobs)
    assert set(names) == {"send default", "process default"}  # and not one of RQ's own commands
    assert {span.trace_id for span in telemetry.jobs} == {span.trace_id for span in sent} or any(span.links for span in telemetry.jobs)


def test_a_duplicate_of_a_unique_job_is_turned_away_without_an_error(telemetry, queue):
    queue.enqueue(hub_jobs.ok, "x", job_id="one", unique=True)
    telemetry.clear()
    with pytest.raises(DuplicateJobError):
        queue.enqueue(hub_jobs.ok, "x", job_id="one", unique=True)

    span = telemetry.span("send default")
    assert (span.status, span.attributes["rq.enqueue.status"], span.attributes["messaging.message.id"]) == ("UNSET", "duplicate", "one")
    assert telemetry.span_names() == ["send default"]
    sent = telemetry.metrics["messaging.client.sent.messages"].points
    assert [point.value for point in sent] == [1]


def test_a_job_that_could_not_be_enqueued_is_new_when_it_is_tried_again(telemetry, queue):
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    job = Job.create(hub_jobs.ok, ("x",), connection=queue.connection)
    with pytest.raises(redis.ConnectionError):
        rq.Queue(connection=redis.Redis(port=1, retry=Retry(NoBackoff(), 0))).enqueue_job(job)
    queue.enqueue_job(job)

    assert [(span.name, span.status) for span in telemetry.spans] == [("send default", "ERROR"), ("send default", "UNSET")]
    assert stored(queue, job).span_id == telemetry.spans[1].span_id


def test_a_user_s_pipeline_is_the_user_s(telemetry, queue):
    with queue.connection.pipeline() as pipeline:
        job = queue.enqueue(hub_jobs.ok, "x", pipeline=pipeline)
        assert telemetry.span_names() == ["send default"]
        pipeline.execute()

    assert telemetry.span_names() == ["send default", "PIPELINE HSET RPUSH SADD"]
    assert stored(queue, job).span_id == telemetry.span("send default").span_id


def test_what_a_job_enqueues_is_its_child(telemetry, queue):
    queue.enqueue(hub_jobs.enqueues, queue.connection.connection_pool.connection_kwargs["port"])
    run(queue)

    outer, inner = (span for span in telemetry.spans if span.kind == "PRODUCER")
    first, second = telemetry.jobs
    assert (first.parent_id, inner.parent_id, second.parent_id) == (outer.span_id, first.span_id, inner.span_id)
    assert {span.correlation_id for span in telemetry.spans} == {outer.correlation_id}


def test_the_carrier_survives_a_job_that_assigns_its_meta(telemetry, queue):
    with chegou_otel.use_correlation_id("order-0002"):
        queue.enqueue(hub_jobs.takes_meta, retry=rq.Retry(max=1))
    run(queue)

    assert [(span.correlation_id, span.attributes["rq.job.status"]) for span in telemetry.jobs] == [
        ("order-0002", "retried"),
        ("order-0002", "finished"),
    ]
    assert len(telemetry.trace_ids()) == 1


def test_callbacks_are_part_of_the_run(telemetry, queue):
    queue.enqueue(hub_jobs.fail, "x", on_failure=rq.Callback(hub_jobs.failed))
    run(queue)

    call = telemetry.span("INCRBY")
    assert (call.trace_id, call.parent_id) == (telemetry.jobs[0].trace_id, telemetry.jobs[0].span_id)


def test_jobs_whose_pipeline_fails_were_not_sent(telemetry, redis_client, monkeypatch):
    """They are sent all or none; the jobs that there are then may be enqueued again."""
    telemetry.clear()
    queue = rq.Queue(connection=redis_client)
    with monkeypatch.context() as gone:
        gone.setattr(redis.client.Pipeline, "execute", lambda *_args, **_options: (_ for _ in ()).throw(redis.ConnectionError("gone")))
        with pytest.raises(redis.ConnectionError):
            queue.enqueue_many([prepared("a"), prepared("b")])
    failed = [span for span in telemetry.spans if span.name == "send default"]
    queue.enqueue_many([prepared("a")])

    assert [(span.status, span.attributes["error.type"]) for span in failed] == [("ERROR", "redis.exceptions.ConnectionError")] * 2
    assert [point.value for point in telemetry.metrics["messaging.client.sent.messages"].points] == [1]


def test_jobs_whose_pipeline_was_executed_were_sent_whatever_comes_then(telemetry, redis_client):
    """RQ executes one for jobs that wait for nobody, and then one for the others."""
    queue = rq.Queue(connection=redis_client)
    first = queue.enqueue(hub_jobs.ok, "first")
    telemetry.clear()
    with pytest.raises(TypeError):
        queue.enqueue_many([prepared("a"), rq.Queue.prepare_data(777, depends_on=[first])])

    assert [span.status for span in telemetry.spans if span.name == "send default"] == ["UNSET"]
    assert queue.count == 2


# -- synchronous queues


@pytest.mark.parametrize("job", ["enqueues_elsewhere", "enqueues_elsewhere_later"])
def test_what_a_job_enqueues_that_many_were_run_with_is_its_own(telemetry, redis_client, redis_port, monkeypatch, job):
    """It is settled when it is sent, not with those that it was run with."""
    monkeypatch.setenv("HUB_REDIS_PORT", str(redis_port))
    telemetry.clear()
    with contextlib.suppress(TypeError):
        rq.Queue(is_async=False, connection=redis_client).enqueue_many(
            [rq.Queue.prepare_data(f"odd_jobs.{job}"), rq.Queue.prepare_data(12345)]
        )
    if job.endswith("later"):
        odd_jobs.later.join()

    assert telemetry.span("send elsewhere").status == "UNSET"


def test_a_synchronous_queue_sends_before_it_runs(telemetry, redis_client):
    telemetry.clear()
    queue = rq.Queue(is_async=False, connection=redis_client)
    with chegou_otel.use_correlation_id("order-0003"):
        job = queue.enqueue(hub_jobs.correlation, on_success=rq.Callback(hub_jobs.succeeded))

    sent = telemetry.span("send default")
    assert (sent.attributes["messaging.message.id"], sent.status, sent.correlation_id) == (job.id, "UNSET", "order-0003")
    assert {span.name for span in telemetry.spans} <= {"send default", "process default", "INCRBY"}
    assert [span.name for span in telemetry.spans].index("send default") == 0  # it ended before the job ran
    (told,) = telemetry.jobs
    assert (told.parent_id, told.correlation_id) == (sent.span_id, "order-0003")
    assert job.return_value() == "order-0003"


def test_a_job_that_fails_on_a_synchronous_queue_was_sent_all_the_same(telemetry, redis_client):
    rq.Queue(is_async=False, connection=redis_client).enqueue(hub_jobs.fail, "x")

    assert telemetry.span("send default").status == "UNSET"


# -- nothing is unpickled


@pytest.mark.parametrize("worker", ["Worker", "SimpleWorker"])
def test_nothing_is_unpickled_for_telemetry(hub, telemetry, tmp_path, worker):
    told = tmp_path / "told"
    job = hub.queue().enqueue(hub_jobs.ok, hub_jobs.Mine(str(told)))
    Job.fetch(job.id, connection=hub.redis)
    assert not told.exists()  # neither by enqueueing nor by loading

    hub.burst(worker, HUB_NO_SETUP="1")
    bare = told.read_text().count("unpickled")
    told.unlink()
    hub.queue().enqueue(hub_jobs.ok, hub_jobs.Mine(str(told)))
    hub.burst(worker)
    hub.wait_jobs(1)

    assert told.read_text().count("unpickled") == bare == 1


def test_a_job_that_cannot_be_unpickled_is_a_failed_run(telemetry, queue):
    job = queue.enqueue(hub_jobs.ok, "x")
    queue.connection.hset(job.key, "data", b"no pickle")
    run(queue)

    (span,) = telemetry.jobs
    assert (span.attributes["rq.job.status"], span.status) == ("failed", "ERROR")


# -- workers that are not RQ's three


def test_the_worker_for_heroku(hub, telemetry):
    with chegou_otel.use_correlation_id("order-0004"):
        hub.queue().enqueue("hub_jobs.ok", "x")
    hub.burst("HerokuWorker")
    (span,) = hub.wait_jobs(1)

    assert span.trace_id.hex() == telemetry.span("send default").trace_id


def test_carriers_lie_in_the_hash_and_nowhere_else(telemetry, queue):
    job = queue.enqueue(hub_jobs.ok, "x")

    assert queue.connection.hexists(job.key, carrier.FIELD)
    assert not queue.connection.hexists(job.key, carrier.ROUND_FIELD)
    assert b"chegou" not in b"".join(value for key, value in queue.connection.hgetall(job.key).items() if not key.startswith(b"chegou"))
    assert os.environ.get("TRACEPARENT") is None
