"""A work-horse whose job told nothing of the span leaves the telling to its parent: once, whole, and also when the parent dies over it."""

from __future__ import annotations

import re
import signal
from time import time_ns

import pytest
import rq

from chegou_otel import _setup
from chegou_otel.integrations.rq.abandoned import Named
from chegou_otel.integrations.rq.executions import Executions
from tests.delivery.receiver import Receiver, wait_for
from tests.integrations.rq.conftest import attributes
from tests.integrations.rq.test_telling import READ, Scene, told

OUTCOME = re.compile(rb'\["[0-9a-f]{16,}","finished",\d')


@pytest.fixture
def producer(telemetry):
    return telemetry


@pytest.fixture
def scene(hub, tmp_path):
    return Scene(hub, tmp_path)


def was_left(folder):
    """Whether an end lies in a segment, for somebody else to tell."""
    return any(OUTCOME.search(path.read_bytes()) for path in folder.glob("spool/hub/*.seg"))


def test_the_parent_tells_all_that_the_work_horse_knew(hub, producer, tmp_path):
    job = hub.queue().enqueue("truth_jobs.ok")
    hub.burst()
    (span,) = hub.wait_jobs(1)

    found = attributes(span)
    assert (found["rq.job.status"], found["messaging.message.id"], found["rq.job.attempt"]) == ("finished", job.id, 1)
    assert found["rq.job.cpu_time"] >= 0
    assert found["rq.job.peak_memory"] > 1 << 20
    assert found["rq.job.memory_growth"] >= 0
    assert found["rq.worker.name"]
    assert span.parent_span_id.hex() == producer.span("send default").span_id
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 20 * 10**9
    for name in ("rq.job.executions", "messaging.process.duration", "rq.job.queue_wait", "rq.job.cpu_time", "rq.job.memory_growth"):
        assert sum(hub.metric(name).values()) == 1, name


def test_what_is_recorded_before_rq_comes_to_its_work_horse_is_handed_over_as_well(hub, producer):
    """By an override of ``main_work_horse``: it is a work-horse from the fork on, and starts no thread."""
    hub.queue().enqueue("truth_jobs.ok")
    hub.burst("Overriding")
    hub.wait_jobs(1)

    assert [body for scope, body, _ in hub.logs if scope == "hub.jobs"] == ["first of all, with 1 threads"]
    assert hub.receiver.counts() == {"process default": 1}


def test_one_that_dies_before_it_says_anything_is_told_and_counted_once(hub, producer):
    job = hub.queue().enqueue("truth_jobs.ok")
    hub.burst("Overriding", HUB_KILL_AT_ONCE="1")
    (span,) = hub.wait_jobs(1)

    found = attributes(span)
    assert (found["rq.job.status"], found["rq.job.exit_signal"], found["messaging.message.id"]) == ("killed", 9, job.id)
    assert found["rq.job.function"] == "truth_jobs.ok"
    for name in ("rq.job.executions", "rq.job.queue_wait", "messaging.process.duration"):
        assert sum(hub.metric(name).values()) == 1, name


@pytest.mark.slow
def test_an_end_that_was_left_to_a_parent_that_died_is_told_by_whoever_comes_next(scene, hub, producer, tmp_path):
    scene.begin(job="waits_quietly")
    scene.worker.send_signal(signal.SIGSTOP)  # it lives, and does not see the end
    scene.finish()
    wait_for(lambda: was_left(tmp_path), 10, "the end")
    scene.kill_worker()
    assert hub.jobs == []
    scene.next()
    scene.next()

    span = told(hub, "finished")
    assert attributes(span)["rq.job.cpu_time"] >= 0
    assert span.status.code == 0
    assert span.parent_span_id.hex() == producer.span("send default").span_id
    for name in ("rq.job.executions", "messaging.process.duration", "rq.job.queue_wait"):
        assert sum(hub.metric(name).values()) == 1, name


@pytest.mark.slow
def test_an_orphan_leaves_nothing_to_a_parent_that_is_gone(scene, hub, producer, tmp_path):
    scene.begin(job="waits_quietly").kill_worker(after=READ)
    scene.finish()

    assert not was_left(tmp_path)
    scene.next()
    told(hub, "finished")


@pytest.mark.slow
def test_what_its_code_said_of_the_span_the_work_horse_tells_itself(scene, hub, producer, tmp_path):
    scene.begin()  # sets an attribute, adds an event
    scene.worker.send_signal(signal.SIGSTOP)
    scene.finish()

    assert not was_left(tmp_path)
    scene.kill_worker()
    scene.next()
    assert attributes(told(hub, "finished"))["truth.before"] == "the end"


CHANGES = {
    "name": lambda span: span.update_name("another"),
    "status": lambda span: span.set_status(_status("ERROR")),
    "attribute": lambda span: span.set_attribute("theirs", 1),
    "the value of an attribute": lambda span: span.set_attribute("rq.job.attempt", 9),
    "event": lambda span: span.add_event("theirs"),
    "exception": lambda span: span.record_exception(ValueError("theirs")),
    "link": lambda span: span.add_link(span.get_span_context()),
    "end": lambda span: span.end(),
}


def _status(name):
    from opentelemetry.trace import StatusCode

    return StatusCode[name]


@pytest.fixture
def made(redis_client, tmp_path):
    """An execution as a worker makes it ready for its work-horse."""
    receiver = Receiver()
    started = _setup.start({"active": "always", "service_name": "left", "endpoint": receiver.url, "spool_dir": str(tmp_path)})
    executions = Executions(started.runtime)
    job = rq.Queue(connection=redis_client).enqueue("hub_jobs.ok", "x")

    class Worker(Named):
        execution = Named(id="an-execution")

    executions.prepare(Worker("a-worker"), job, Named("default"))
    executions.receiver, executions.telemetry = receiver, started
    yield executions.prepared
    started.shutdown()
    receiver.close()


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_the_span_is_seen(made, change):
    assert made.is_as_made()
    CHANGES[change](made.span)

    assert not made.is_as_made()


def test_what_a_cleaner_has_told_of_a_long_job_its_parent_does_not_tell_again(made, redis_client):
    executions = made.executions
    assert executions.claims.take(made.id, "abandoned", redis_client)
    now = time_ns()
    executions.tell_left(made, "finished", now - 61 * 10**9, now, {})
    assert executions.telemetry.flush(10)
    assert [name for name in executions.receiver.names() if name.startswith("process ")] == []

    executions.tell_left(made, "finished", now - 59 * 10**9, now, {})  # nobody thinks that abandoned
    assert executions.telemetry.flush(10)
    assert executions.receiver.names().count("process default") == 1
