"""Ways in that are not a queue's: RQ's cron, rq-scheduler, webhooks, and the schedulers as processes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import hub_jobs
import pytest
import rq
import rq.webhook
from opentelemetry import trace
from rq.cron import CronScheduler

import chegou_otel
from tests.delivery.receiver import wait_for
from tests.integrations.http_servers import Origin
from tests.integrations.rq.conftest import attributes
from tests.integrations.rq.ways import run, stored

pytestmark = pytest.mark.slow


@pytest.fixture
def queue(telemetry, redis_client):
    telemetry.clear()
    return rq.Queue(connection=redis_client)


def producers(telemetry):
    return [span for span in telemetry.spans if span.kind == "PRODUCER"]


# -- cron


def test_each_tick_is_a_story_of_its_own_with_the_cron_job_s_name(telemetry, queue):
    cron = CronScheduler(connection=queue.connection)
    cron.register(hub_jobs.ok, "default", args=("x",), interval=3600, name="nightly")
    (job,) = cron.get_jobs()
    with trace.get_tracer("x").start_as_current_span("not the ticks'"), chegou_otel.use_correlation_id("not-the-ticks"):
        for _ in range(2):
            job.enqueue(queue.connection)
    run(queue)

    # And no pipeline of RQ's.
    assert telemetry.span_names() == ["send default"] * 2 + ["not the ticks'"] + ["process default"] * 2
    first, second = producers(telemetry)
    assert (first.parent_id, second.parent_id) == ("", "")
    assert first.trace_id != second.trace_id
    assert len({first.correlation_id, second.correlation_id, "not-the-ticks"}) == 3
    assert [(span.trace_id, span.correlation_id) for span in telemetry.jobs] == [
        (span.trace_id, span.correlation_id) for span in (first, second)
    ]
    assert {span.attributes["rq.cron.name"] for span in (*producers(telemetry), *telemetry.jobs)} == {"nightly"}


def test_what_is_enqueued_after_a_tick_is_no_tick_s(telemetry, queue):
    cron = CronScheduler(connection=queue.connection)
    cron.register(hub_jobs.ok, "default", args=("x",), interval=3600)
    with chegou_otel.use_correlation_id("order-0001"):
        cron.enqueue_jobs()
        queue.enqueue(hub_jobs.ok, "x")

    tick, own = producers(telemetry)
    assert (tick.attributes["rq.cron.name"], "rq.cron.name" in own.attributes, own.correlation_id) == ("hub_jobs.ok", False, "order-0001")


def test_rq_cron_as_a_process_makes_producers_and_nothing_else(hub, tmp_path):
    config = tmp_path / "cron_config.py"
    config.write_text(
        "from rq import cron\nimport hub_jobs\ncron.register(hub_jobs.ok, 'default', args=('x',), interval=1, name='often')\n"
    )
    url = f"redis://127.0.0.1:{hub.redis_port}"
    process = hub.start("-m", "chegou_otel", "run", "--", "rq", "cron", "--url", url, str(config), HUB_NO_SETUP="1")
    wait_for(lambda: hub.queue().count >= 2, 30, "two ticks")
    process.terminate()
    assert process.wait(20) in (0, -15), hub.said()
    wait_for(lambda: hub.receiver.counts().get("send default", 0) >= 2, 20, hub.said)

    assert set(hub.receiver.names()) == {"send default"}
    spans = [span for span, _, _ in hub.receiver.spans]
    assert len({span.trace_id for span in spans}) == len({attributes(span)["correlation_id"] for span in spans}) == len(spans)
    assert {attributes(span)["rq.cron.name"] for span in spans} == {"often"}


# -- webhooks


@pytest.fixture
def origin():
    made = Origin()
    yield made
    made.close()


def test_a_webhook_is_a_call_of_the_run(telemetry, queue, origin):
    with chegou_otel.use_correlation_id("order-0004"):
        queue.enqueue(hub_jobs.ok, "x", webhooks=[rq.webhook.Webhook(origin.url("/ok"), "finished", method="POST")])
    run(queue)

    assert [path for path, _ in origin.seen] == ["/ok"]
    assert telemetry.span_names() == ["send default", "POST", "process default"]
    call, told = telemetry.span("POST"), telemetry.jobs[0]
    assert (call.trace_id, call.parent_id, call.correlation_id) == (told.trace_id, told.span_id, "order-0004")


# -- rq-scheduler


@pytest.fixture
def scheduler(queue):
    module = pytest.importorskip("rq_scheduler")
    return module.Scheduler(connection=queue.connection)


def past():
    return datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=5)


SCHEDULED = {
    "enqueue_at": lambda scheduler: scheduler.enqueue_at(past(), hub_jobs.ok, "x"),
    "enqueue_in": lambda scheduler: scheduler.enqueue_in(timedelta(seconds=-5), hub_jobs.ok, "x"),
    "schedule": lambda scheduler: scheduler.schedule(past(), hub_jobs.ok, ("x",)),
}


@pytest.mark.parametrize("schedule", SCHEDULED)
def test_a_job_of_rq_scheduler_keeps_its_originator(telemetry, queue, scheduler, schedule):
    with chegou_otel.use_correlation_id("order-0002"):
        job = SCHEDULED[schedule](scheduler)
    (sent,) = producers(telemetry)
    assert telemetry.span_names() == ["send default"]
    assert (sent.attributes["messaging.message.id"], stored(queue, job).span_id) == (job.id, sent.span_id)

    scheduler.run(burst=True)
    run(queue)

    assert telemetry.span_names() == ["send default", "process default"]
    (told,) = telemetry.jobs
    assert (told.correlation_id, told.trace_id != sent.trace_id) == ("order-0002", True)
    assert [(link.trace_id, link.span_id) for link in told.links] == [(sent.trace_id, sent.span_id)]


@pytest.mark.parametrize(
    "schedule",
    [
        lambda scheduler: scheduler.schedule(past(), hub_jobs.ok, ("x",), interval=60, repeat=3),
        lambda scheduler: scheduler.cron("* * * * *", hub_jobs.ok, ("x",)),
    ],
    ids=["interval", "cron"],
)
def test_what_rq_scheduler_enqueues_again_and_again_is_a_trace_each_time(telemetry, queue, scheduler, schedule):
    with chegou_otel.use_correlation_id("order-0003"):
        job = schedule(scheduler)
    (sent,) = producers(telemetry)
    for _ in range(2):
        scheduler.change_execution_time(job, past())
        telemetry_before = len(telemetry.jobs)
        scheduler.enqueue_job(rq.job.Job.fetch(job.id, connection=queue.connection))
        run(queue)
        assert len(telemetry.jobs) == telemetry_before + 1

    assert len({span.trace_id for span in telemetry.jobs} | {sent.trace_id}) == 3
    assert {span.correlation_id for span in telemetry.jobs} == {"order-0003"}
    assert {span.attributes["rq.job.attempt"] for span in telemetry.jobs} == {1}
    assert all((link.trace_id, link.span_id) == (sent.trace_id, sent.span_id) for link in (span.links[0] for span in telemetry.jobs))
    assert len(producers(telemetry)) == 1
