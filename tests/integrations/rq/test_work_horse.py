"""A real forking worker, a real receiver: every execution told once, truthfully, with its logs and measurements."""

from __future__ import annotations

import re

import pytest
import rq

import chegou_otel
from tests.integrations.rq.conftest import attributes

CLASSES = ["Worker", "SpawnWorker", "SimpleWorker"]


@pytest.fixture
def producer(telemetry):
    """Enqueue with telemetry on in this process, so that jobs have an originator."""
    return telemetry


def enqueue(hub, name, *args, correlation="order-0007", **options):
    with chegou_otel.use_correlation_id(correlation):
        return hub.queue().enqueue(f"hub_jobs.{name}", *args, **options)


@pytest.mark.parametrize("worker", CLASSES)
def test_a_finished_job_joins_its_producer_with_its_logs_and_counts(hub, producer, worker):
    job = enqueue(hub, "ok", "x")
    hub.burst(worker)
    (span,) = hub.wait_jobs(1)

    sent = producer.span("send default")
    told = attributes(span)
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex(), span.status.code) == (
        "process default",
        sent.trace_id,
        sent.span_id,
        0,
    )
    assert (told["rq.job.status"], told["rq.job.attempt"], told["hub.name"], told["rq.job.function"]) == ("finished", 1, "x", "hub_jobs.ok")
    assert (told["messaging.message.id"], told["correlation_id"]) == (job.id, "order-0007")
    assert 0 <= told["rq.job.queue_wait"] < 60
    (log,) = [log for scope, _, log in hub.logs if scope == "hub.jobs"]
    assert (log.trace_id, log.span_id, attributes(log)["correlation_id"]) == (span.trace_id, span.span_id, "order-0007")
    assert list(hub.metric("hub.jobs").values()) == [1]
    assert hub.receiver.counts()["process default"] == 1


@pytest.mark.parametrize("worker", CLASSES)
def test_a_retry_is_two_executions_of_one_story(hub, producer, worker, tmp_path):
    enqueue(hub, "once_then_ok", str(tmp_path / "seen"), retry=rq.Retry(max=2))
    hub.burst(worker)
    first, second = hub.wait_jobs(2)

    assert [
        (attributes(s)["rq.job.status"], attributes(s)["rq.job.attempt"], attributes(s)["rq.job.max_attempts"]) for s in (first, second)
    ] == [
        ("retried", 1, 3),
        ("finished", 2, 3),
    ]
    assert first.trace_id == second.trace_id
    assert first.span_id != second.span_id
    assert (first.status.code, second.status.code) == (2, 0)
    assert [event.name for event in first.events] == ["exception"]


@pytest.mark.parametrize("worker", CLASSES)
def test_a_failed_job_is_an_error_with_its_exception_and_leaks_no_argument(hub, producer, worker):
    enqueue(hub, "fail", "hunter2secret")
    hub.burst(worker)
    (span,) = hub.wait_jobs(1)

    assert (attributes(span)["rq.job.status"], attributes(span)["error.type"], span.status.code) == ("failed", "ValueError", 2)
    assert "hunter2secret" not in str(hub.receiver.requests)


@pytest.mark.parametrize("worker", ["Worker", "SpawnWorker"])
def test_a_killed_work_horse_is_told_by_its_parent_and_nothing_recorded_is_lost(hub, producer, worker):
    enqueue(hub, "kill")
    hub.burst(worker)
    (span,) = hub.wait_jobs(1)

    told = attributes(span)
    assert (told["rq.job.status"], told["rq.job.exit_signal"], told["hub.before"], span.status.code) == ("killed", 9, "the kill", 2)
    assert [event.name for event in span.events] == ["last words"]
    assert told["correlation_id"] == "order-0007"
    inner = next(s for s, _, _ in hub.receiver.spans if s.name == "inner work")
    assert (inner.trace_id, inner.parent_span_id) == (span.trace_id, span.span_id)
    assert "about to die" in [body for _, body, _ in hub.logs]


@pytest.mark.parametrize("worker", ["Worker", "SpawnWorker"])
def test_a_work_horse_that_leaves_by_exit_0_vanished(hub, producer, worker):
    enqueue(hub, "leave")
    hub.burst(worker)
    (span,) = hub.wait_jobs(1)

    assert (attributes(span)["rq.job.status"], span.status.code) == ("vanished", 2)


@pytest.mark.parametrize("worker", CLASSES)
def test_a_timeout_is_told_as_one(hub, producer, worker):
    enqueue(hub, "too_long", job_timeout=1)
    hub.burst(worker)
    (span,) = hub.wait_jobs(1)

    assert attributes(span)["rq.job.status"] == "timed_out"


def test_the_function_of_a_job_that_dies_before_it_is_loaded_is_known(hub, producer):
    """What would have to be unpickled to learn it is in the carrier."""
    enqueue(hub, "ok", "x")
    hub.burst(HUB_KILL_BEFORE_LOADING="1")
    (span,) = hub.wait_jobs(1)

    told = attributes(span)
    assert (told["rq.job.status"], told["rq.job.function"], told["correlation_id"]) == ("killed", "hub_jobs.ok", "order-0007")


def test_what_a_work_horse_learned_the_next_one_knows(hub, producer):
    """A line that logs is new to the first work-horse only: it tells its parent, from which the others are forked."""
    for n in range(3):
        enqueue(hub, "ok", str(n))
    worker = hub.burst(HUB_SHOW_SITES="1")
    hub.wait_jobs(3)

    learned = re.findall(r"learned ok in (\d+)", hub.said())
    assert len(set(learned)) == len(learned) == 2
    assert str(worker.pid) in learned
    assert len([body for scope, body, _ in hub.logs if scope == "hub.jobs"]) == 3


def test_a_counter_of_100_forked_jobs_is_one_series_and_reads_100(hub, producer):
    for n in range(100):
        enqueue(hub, "ok", str(n))
    hub.burst()
    hub.wait_jobs(100)

    assert list(hub.metric("hub.jobs").values()) == [100]
    assert sum(hub.metric("rq.job.executions").values()) == 100
    assert len({span.span_id for span in hub.jobs}) == 100


def test_rq_s_plumbing_makes_no_spans_and_the_job_s_own_redis_call_does(hub, producer):
    enqueue(hub, "own_redis", hub.redis_port)
    hub.burst()
    hub.wait_jobs(1)

    assert hub.receiver.counts() == {"process default": 1, "PING": 1}


def test_a_job_from_before_the_package_runs_as_a_new_story(hub):
    hub.queue().enqueue("hub_jobs.ok", "old")
    hub.burst()
    (span,) = hub.wait_jobs(1)

    assert span.parent_span_id == b""
    assert attributes(span)["correlation_id"]


def test_the_id_is_the_job_s_inside_the_job(hub, producer):
    job = enqueue(hub, "correlation", correlation="order-0042")
    hub.burst()

    assert job.return_value(refresh=True) == "order-0042"


def test_a_scheduled_job_is_a_new_trace_with_a_link_and_the_same_id(hub, producer):
    from datetime import timedelta

    with chegou_otel.use_correlation_id("order-0043"):
        hub.queue().enqueue_in(timedelta(seconds=0), "hub_jobs.ok", "later")
    hub.work("-m", "rq.cli", "worker", "--url", f"redis://127.0.0.1:{hub.redis_port}", "--burst", "--with-scheduler", "-c", "hub_settings")
    (span,) = hub.wait_jobs(1)

    sent = producer.span("send default")
    assert span.trace_id.hex() != sent.trace_id
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(sent.trace_id, sent.span_id)]
    assert attributes(span)["correlation_id"] == "order-0043"


STARTS = {
    "rq worker": (("-m", "rq.cli", "worker", "--url", "{url}", "--burst"), {"HUB_SETTINGS_FROM_JOBS": "1"}),
    "rq worker -c": (("-m", "rq.cli", "worker", "--url", "{url}", "--burst", "-c", "hub_settings"), {}),
    "manage.py rqworker": (("manage.py", "rqworker", "--burst"), {}),
    "chegou-otel run": (("-m", "chegou_otel", "run", "--", "rq", "worker", "--url", "{url}", "--burst"), {"HUB_NO_SETUP": "1"}),
}


@pytest.mark.parametrize("start", STARTS)
def test_all_four_ways_to_start_a_worker_tell_the_whole_story(hub, producer, start, tmp_path):
    command, env = STARTS[start]
    enqueue(hub, "ok", "x")
    enqueue(hub, "once_then_ok", str(tmp_path / "seen"), retry=rq.Retry(max=1))
    hub.work(*[part.format(url=f"redis://127.0.0.1:{hub.redis_port}") for part in command], **env)
    spans = hub.wait_jobs(3)

    assert sorted(attributes(span)["rq.job.status"] for span in spans) == ["finished", "finished", "retried"]
    assert {attributes(span)["correlation_id"] for span in spans} == {"order-0007"}
    assert {span.trace_id.hex() for span in spans} == {span.trace_id for span in producer.spans}
    assert "ok x" in [body for _, body, _ in hub.logs]
    if start == "rq worker":
        assert hub.said().count("Better: `chegou-otel run -- rq worker`") == 1


def test_a_worker_s_start_and_end_make_no_spans(hub):
    hub.work("-m", "chegou_otel", "run", "--", "rq", "worker", "--url", f"redis://127.0.0.1:{hub.redis_port}", "--burst", HUB_NO_SETUP="1")

    assert hub.receiver.names() == []


def test_a_work_horse_need_not_find_out_what_its_parent_knows(hub):
    """Logging asks whether a lone argument is a mapping; abstract classes keep the answer, but a child's is gone with it."""
    job = hub.queue().enqueue("hub_jobs.asks_of_abstract_classes")
    hub.burst()

    assert job.return_value(refresh=True) == 0
