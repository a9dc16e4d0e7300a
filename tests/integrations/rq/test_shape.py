"""Where a run stands: below the span that enqueued it, or in a trace of its own with a link to it; and the how-manieth it is."""

from __future__ import annotations

from datetime import timedelta

import hub_jobs
import pytest
import rq
from rq.registry import FailedJobRegistry

import chegou_otel
from chegou_otel.integrations.rq import carrier
from chegou_otel.testing import capture
from tests.integrations.rq.conftest import attributes
from tests.integrations.rq.ways import promote, run, run_all, unseen


@pytest.fixture
def queue(telemetry, redis_client):
    telemetry.clear()
    return rq.Queue(connection=redis_client)


def sent(telemetry):
    return telemetry.span("send default")


def links(span):
    return [(link.trace_id, link.span_id) for link in span.links]


def attempts(telemetry, *more):
    names = ("rq.job.attempt", "rq.job.max_attempts", *more)
    return [tuple(span.attributes.get(name) for name in names) for span in telemetry.jobs]


def ids(span):
    return (span.trace_id, span.span_id)


# -- the same trace


@pytest.mark.parametrize("interval", [0, 60], ids=["at once", "delayed"])
def test_a_retry_is_a_child_of_the_same_producer(telemetry, queue, tmp_path, interval):
    queue.enqueue(hub_jobs.fails_until, str(tmp_path / "runs"), 3, retry=rq.Retry(max=3, interval=interval))
    run_all(queue)

    producer = sent(telemetry)
    assert [(span.trace_id, span.parent_id, span.links) for span in telemetry.jobs] == [(producer.trace_id, producer.span_id, ())] * 3
    assert attempts(telemetry) == [(1, 4), (2, 4), (3, 4)]


def test_a_retry_that_is_returned_counts_as_one(telemetry, queue):
    queue.enqueue(hub_jobs.returns_a_retry)
    run(queue)

    producer = sent(telemetry)
    assert {(span.trace_id, span.parent_id) for span in telemetry.jobs} == {(producer.trace_id, producer.span_id)}
    assert [count for count, _ in attempts(telemetry)] == [1, 2]


def test_a_dependent_continues_the_trace_in_which_it_was_enqueued(telemetry, queue):
    first = queue.enqueue(hub_jobs.ok, "x")
    second = queue.enqueue(hub_jobs.ok, "y", depends_on=first)
    run(queue)

    producers = {span.attributes["messaging.message.id"]: span for span in telemetry.spans if span.kind == "PRODUCER"}
    told = {span.attributes["messaging.message.id"]: span for span in telemetry.jobs}
    for job in (first, second):
        assert (told[job.id].trace_id, told[job.id].parent_id) == (producers[job.id].trace_id, producers[job.id].span_id)


# -- a trace of its own


def test_a_scheduled_job_runs_in_a_trace_of_its_own_and_so_do_its_retries(telemetry, queue, tmp_path):
    with chegou_otel.use_correlation_id("order-0001"):
        queue.enqueue_in(timedelta(hours=1), hub_jobs.fails_until, str(tmp_path / "runs"), 3, retry=rq.Retry(max=2, interval=60))
    run_all(queue)

    producer, told = sent(telemetry), telemetry.jobs
    assert len({span.trace_id for span in told}) == 1
    assert told[0].trace_id != producer.trace_id
    assert [(span.parent_id, links(span)) for span in told] == [("", [ids(producer)])] * 3
    assert len({span.span_id for span in told}) == 3
    assert {span.correlation_id for span in told} == {"order-0001"}
    assert attempts(telemetry) == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("interval", [0, 60], ids=["at once", "delayed"])
def test_each_repeat_is_a_trace_linked_to_the_producer_and_to_the_run_before(telemetry, queue, interval):
    with chegou_otel.use_correlation_id("order-0002"):
        queue.enqueue(hub_jobs.ok, "x", repeat=rq.Repeat(times=2, interval=interval))
    run_all(queue)

    producer = sent(telemetry)
    first, second, third = telemetry.jobs
    assert (first.trace_id, first.parent_id) == (producer.trace_id, producer.span_id)
    assert len({first.trace_id, second.trace_id, third.trace_id}) == 3
    assert (second.parent_id, third.parent_id) == ("", "")
    assert links(second) == [ids(producer), ids(first)]
    assert links(third) == [ids(producer), ids(second)]
    assert {span.correlation_id for span in telemetry.jobs} == {"order-0002"}
    assert attempts(telemetry, "rq.job.repeat") == [(1, 1, None), (1, 1, 1), (1, 1, 2)]


def test_a_repeat_counts_its_attempts_from_one(telemetry, queue, tmp_path):
    """The first run needs three attempts of four; RQ gives the repeat what is left."""
    queue.enqueue(hub_jobs.fails_until, str(tmp_path / "runs"), 3, retry=rq.Retry(max=3), repeat=rq.Repeat(times=1))
    run(queue)

    assert attempts(telemetry, "rq.job.repeat") == [(1, 4, None), (2, 4, None), (3, 4, None), (1, 2, 1)]


def test_a_repeat_that_is_tried_again_stays_in_its_trace(telemetry, queue, tmp_path):
    queue.enqueue(hub_jobs.fails_at, str(tmp_path / "runs"), 2, retry=rq.Retry(max=3), repeat=rq.Repeat(times=2))
    run(queue)

    assert attempts(telemetry, "rq.job.repeat") == [(1, 4, None), (1, 4, 1), (2, 4, 1), (1, 3, 2)]
    assert [span.trace_id == telemetry.jobs[1].trace_id for span in telemetry.jobs] == [False, True, True, False]


def requeue_job(queue, job):
    job.requeue()


def requeue_by_registry(queue, job):
    FailedJobRegistry(queue=queue).requeue(job.id)


@pytest.mark.parametrize("requeue", [requeue_job, requeue_by_registry])
def test_a_requeue_by_hand_is_a_trace_linked_to_the_producer_and_to_who_did_it(telemetry, queue, tmp_path, requeue):
    from opentelemetry import trace

    with chegou_otel.use_correlation_id("order-0003"):
        job = queue.enqueue(hub_jobs.fails_until, str(tmp_path / "runs"), 4, retry=rq.Retry(max=1))
    run(queue)
    producer = sent(telemetry)
    telemetry.clear()
    with unseen(), trace.get_tracer("admin").start_as_current_span("POST /admin/"):
        requeue(queue, rq.job.Job.fetch(job.id, connection=queue.connection))
    run(queue)

    (again,) = telemetry.jobs
    assert "send default" not in telemetry.span_names()
    assert again.trace_id not in (producer.trace_id, telemetry.span("POST /admin/").trace_id)
    assert (again.parent_id, links(again)) == ("", [ids(producer), ids(telemetry.span("POST /admin/"))])
    assert (again.correlation_id, attempts(telemetry)) == ("order-0003", [(1, 1)])


@pytest.mark.skipif(int(rq.__version__.split(".")[0]) < 3, reason="rate limits came with RQ 3")  # noqa: PLR2004
def test_a_requeue_of_a_rate_limited_job_is_one_too(telemetry, queue, tmp_path):
    from opentelemetry import trace
    from rq.rate_limit import RateLimit

    job = queue.enqueue(hub_jobs.fails_until, str(tmp_path / "runs"), 2, rate_limit=RateLimit("one-by-one", 1))
    run(queue)
    with unseen(), trace.get_tracer("admin").start_as_current_span("POST /admin/"):
        rq.job.Job.fetch(job.id, connection=queue.connection).requeue()
    run(queue)

    first, again = telemetry.jobs
    assert again.trace_id != first.trace_id
    assert links(again) == [ids(sent(telemetry)), ids(telemetry.span("POST /admin/"))]


def test_a_requeue_by_who_has_not_this_package_is_one_too(hub, telemetry, tmp_path):
    with chegou_otel.use_correlation_id("order-0004"):
        job = hub.queue().enqueue("hub_jobs.fails_until", str(tmp_path / "runs"), 2)
    hub.burst()
    hub.wait_jobs(1)
    url = f"redis://127.0.0.1:{hub.redis_port}"
    hub.work("-m", "rq.cli", "requeue", "--url", url, "--queue", "default", job.id)
    hub.burst()
    first, again = hub.wait_jobs(2)

    producer = sent(telemetry)
    assert (first.trace_id.hex(), again.trace_id != first.trace_id) == (producer.trace_id, True)
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in again.links] == [ids(producer)]
    assert (attributes(again)["correlation_id"], attributes(again)["rq.job.attempt"]) == ("order-0004", 1)


def test_two_requeues_are_two_traces(telemetry, queue, tmp_path):
    job = queue.enqueue(hub_jobs.fails_until, str(tmp_path / "runs"), 9)
    run(queue)
    for _ in range(2):
        rq.job.Job.fetch(job.id, connection=queue.connection).requeue()
        run(queue)

    assert len({span.trace_id for span in telemetry.jobs}) == 3


# -- where nothing is known


def test_without_an_originator_the_id_is_made_at_enqueue(telemetry, queue):
    queue.enqueue(hub_jobs.ok, "x")
    run(queue)

    assert sent(telemetry).correlation_id == telemetry.jobs[0].correlation_id
    assert sent(telemetry).parent_id == ""


def test_a_job_of_which_nothing_is_known_begins_a_story_that_its_retries_join(telemetry, queue, redis_client, tmp_path):
    job = queue.enqueue(hub_jobs.fails_until, str(tmp_path / "runs"), 3, retry=rq.Retry(max=2))
    redis_client.hdel(job.key, carrier.FIELD)
    telemetry.clear()
    run(queue)

    first, second, third = telemetry.jobs
    assert first.parent_id == ""
    assert [(span.trace_id, span.parent_id, span.correlation_id) for span in (second, third)] == [
        (first.trace_id, first.span_id, first.correlation_id)
    ] * 2
    assert [count for count, _ in attempts(telemetry)] == [1, 2, 3]
    assert "send default" not in telemetry.span_names()  # nothing was enqueued that was not there before


def test_a_scheduled_job_of_which_nothing_is_known_is_promoted_without_a_span(telemetry, queue, redis_client):
    job = queue.enqueue_in(timedelta(hours=1), hub_jobs.ok, "x")
    redis_client.hdel(job.key, carrier.FIELD)
    telemetry.clear()
    promote(queue)
    run(queue)

    assert telemetry.span_names() == ["process default"]
    assert telemetry.jobs[0].correlation_id


@pytest.mark.parametrize("text", ["9;an;unknown;future", "1;;;00;bad id;0;parent", "\x00\xff"])
def test_a_carrier_that_cannot_be_read_is_left_as_it_is(telemetry, queue, redis_client, text, tmp_path):
    job = queue.enqueue(hub_jobs.fails_until, str(tmp_path / "runs"), 2, retry=rq.Retry(max=1))
    redis_client.hset(job.key, carrier.FIELD, text)
    redis_client.hset(job.key, carrier.ROUND_FIELD, text)
    telemetry.clear()
    run(queue)

    assert [span.attributes["rq.job.status"] for span in telemetry.jobs] == ["retried", "finished"]
    assert redis_client.hget(job.key, carrier.FIELD).decode() == text


# -- as you like it


@pytest.fixture
def shaped(redis_client):
    """Run the same jobs under a shape: an enqueue with a retry and a repeat, and a scheduled one."""

    def go(shape, path):
        with capture(rq_trace_shape=shape) as recorded:
            queue = rq.Queue(connection=redis_client)
            queue.enqueue(hub_jobs.fails_until, str(path / "runs"), 2, retry=rq.Retry(max=1), repeat=rq.Repeat(times=1))
            queue.enqueue_in(timedelta(hours=1), hub_jobs.ok, "later")
            run_all(queue)
            sent = {span.attributes["messaging.message.id"]: span for span in recorded.spans if span.kind == "PRODUCER"}
            return [(span, sent[span.attributes["messaging.message.id"]]) for span in recorded.jobs]

    return go


def test_parents_everywhere(shaped, tmp_path):
    for span, producer in shaped("parents", tmp_path):
        assert (span.trace_id, span.parent_id) == ids(producer)


def test_links_everywhere(shaped, tmp_path):
    runs = shaped("links", tmp_path)
    for span, producer in runs:
        assert span.parent_id == ""
        assert ids(producer) in links(span)
    assert len({span.trace_id for span, _ in runs} | {producer.trace_id for _, producer in runs}) == len(runs) + 2


def test_by_default_it_depends(shaped, tmp_path):
    assert [span.trace_id == producer.trace_id for span, producer in shaped("auto", tmp_path)] == [True, True, False, False]


# -- against the schedule


def lateness(telemetry):
    return [span.attributes.get("rq.job.schedule_lateness") for span in telemetry.jobs]


def test_a_scheduled_job_says_how_late_it_is_and_another_does_not(telemetry, queue):
    queue.enqueue(hub_jobs.ok, "x")
    queue.enqueue_in(timedelta(seconds=-30), hub_jobs.ok, "y")
    run_all(queue)

    now, late = lateness(telemetry)
    assert now is None
    assert 29 < late < 60


def test_only_what_waited_for_its_time_is_late(telemetry, queue, tmp_path):
    """Scheduled, then tried again at once: the second attempt has no time of its own."""
    queue.enqueue_in(timedelta(seconds=-30), hub_jobs.fails_until, str(tmp_path / "runs"), 2, retry=rq.Retry(max=1))
    run_all(queue)

    first, second = lateness(telemetry)
    assert (first > 29, second) == (True, None)


@pytest.mark.parametrize(
    "options", [{"repeat": rq.Repeat(times=1, interval=60)}, {"retry": rq.Retry(max=1, interval=60)}], ids=["repeat", "retry"]
)
def test_a_delayed_repeat_or_retry_has_a_time(telemetry, queue, tmp_path, options):
    queue.enqueue(hub_jobs.fails_until, str(tmp_path / "runs"), 2 if "retry" in options else 0, **options)
    run_all(queue)

    assert [late is not None for late in lateness(telemetry)] == [False, True]


# -- whoever tells it


def test_a_scheduled_job_that_was_killed_is_linked_by_whoever_tells_it(hub, telemetry):
    with chegou_otel.use_correlation_id("order-0005"):
        hub.queue().enqueue_in(timedelta(seconds=-30), "hub_jobs.kill")
    with unseen():
        promote(hub.queue())
    hub.burst()
    (told,) = hub.wait_jobs(1)

    producer = sent(telemetry)
    assert attributes(told)["rq.job.status"] == "killed"
    assert (told.parent_span_id, told.trace_id.hex() != producer.trace_id) == (b"", True)
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in told.links] == [ids(producer)]
    assert attributes(told)["correlation_id"] == "order-0005"


WORKERS = {
    **{name: (("work.py", name, "burst"), {}) for name in ("Worker", "SpawnWorker", "SimpleWorker")},
    "setup() in each work-horse": (("-m", "rq.cli", "worker", "--url", "{url}", "--burst"), {"HUB_SETTINGS_FROM_JOBS": "1"}),
}


@pytest.mark.parametrize("worker", WORKERS)
def test_every_worker_gives_a_repeat_and_its_retries_their_trace(hub, telemetry, tmp_path, worker):
    hub.queue().enqueue("hub_jobs.fails_at", str(tmp_path / "runs"), 2, retry=rq.Retry(max=1), repeat=rq.Repeat(times=1))
    command, env = WORKERS[worker]
    hub.work(*[part.format(url=f"redis://127.0.0.1:{hub.redis_port}") for part in command], **env)
    first, repeat, again = hub.wait_jobs(3)

    producer = sent(telemetry)
    assert (first.trace_id.hex(), repeat.trace_id != first.trace_id, again.trace_id) == (producer.trace_id, True, repeat.trace_id)
    for span in (repeat, again):
        assert [(link.trace_id, link.span_id) for link in span.links] == [
            (bytes.fromhex(producer.trace_id), bytes.fromhex(producer.span_id)),
            (first.trace_id, first.span_id),
        ]
    numbers = [(attributes(span)["rq.job.attempt"], attributes(span).get("rq.job.repeat")) for span in (first, repeat, again)]
    assert numbers == [(1, None), (1, 1), (2, 1)]
