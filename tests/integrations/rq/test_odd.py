"""Jobs and workers that do what few do: everything is told once, truthfully, and nothing that was measured is lost."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
import rq
import rq.executions

from tests.delivery.receiver import wait_for
from tests.integrations.rq.conftest import attributes

pytestmark = pytest.mark.slow
SWITCH = 2.5  # a courier looks once a second


@pytest.fixture
def producer(telemetry):
    return telemetry


def statuses(hub):
    return [attributes(span)["rq.job.status"] for span in hub.jobs]


def total(hub, name):
    return sum(hub.metric(name).values())


@pytest.mark.parametrize("memory", ["", "1"], ids=["disk", "memory"])
@pytest.mark.parametrize(
    "worker", ["Worker", "SpawnWorker", "OwnMonitor", "OwnExecute", "OwnFork", "OwnHorse", "Announces", "Around", "Refetches"]
)
def test_nobody_is_left_to_a_parent_that_does_not_come(hub, producer, worker, memory):
    for _ in range(3):
        hub.queue().enqueue("truth_jobs.ok")
    hub.queue().enqueue("odd_jobs.count")
    hub.work("odd_work.py", worker, ODD_MEMORY=memory)
    hub.wait_jobs(4)

    assert statuses(hub) == ["finished"] * 4
    assert len({span.span_id for span in hub.jobs}) == 4
    assert (total(hub, "rq.job.executions"), total(hub, "rq.job.queue_wait")) == (4, 4)
    assert total(hub, "odd.count") == 1


def test_what_several_bases_override_is_called_all_the_same(hub, producer):
    hub.queue().enqueue("odd_jobs.count")
    hub.work("odd_work.py", "Heir")
    hub.wait_jobs(1)

    assert ("work is done my way" in hub.said(), "a job is performed my way" in hub.said()) == (True, True)
    assert (statuses(hub), total(hub, "odd.count")) == (["finished"], 1)


def test_a_work_horse_that_ships_by_itself_before_it_is_one_stops_then(hub, producer):
    """Its courier would read what it hands over to its worker, and hand that over again."""
    hub.queue().enqueue("odd_jobs.counts_for_a_while")
    hub.work("odd_work.py", "LogsFirst")
    hub.wait_jobs(1)
    hub.work("truth_work.py", "next")

    assert (total(hub, "odd.count"), total(hub, "rq.job.executions"), total(hub, "rq.job.queue_wait")) == (20, 1, 1)
    assert len([span for span, _, _ in hub.receiver.spans if span.name == "inner"]) == 20
    assert [body for _, body, _ in hub.logs].count("first of all") == 1


def test_a_flush_in_a_job_takes_no_measurement_along(hub, producer):
    for _ in range(3):
        hub.queue().enqueue("odd_jobs.flushes_and_counts")
    hub.burst()
    hub.wait_jobs(3)

    assert total(hub, "odd.count") == 3


def test_a_processor_that_a_job_adds_sees_the_job_s_span_end(hub, producer, tmp_path):
    path = tmp_path / "ended"
    hub.queue().enqueue("odd_jobs.adds_a_processor", str(path))
    hub.burst()

    assert path.read_text() == "process default\n"


def test_a_job_that_shuts_telemetry_down_has_finished_all_the_same(hub, producer):
    """Its work-horse cannot say so any more; Redis can."""
    hub.queue().enqueue("odd_jobs.shuts_down")
    hub.burst()
    hub.wait_jobs(1)

    assert statuses(hub) == ["finished"]


def test_a_job_that_sets_up_anew_hands_nothing_over_to_itself(hub, producer, tmp_path):
    job = hub.queue().enqueue("odd_jobs.sets_up_anew", str(tmp_path / "anew"))
    hub.burst()

    assert job.return_value(refresh=True) < 10


@pytest.mark.parametrize(("retries", "status"), [(0, "failed"), (1, "retried")])
def test_a_job_that_shuts_telemetry_down_and_fails_is_told_by_what_redis_says(hub, producer, retries, status):
    hub.queue().enqueue("odd_jobs.shuts_down_and_fails", retry=rq.Retry(max=retries) if retries else None)
    hub.work("work.py", "Worker", "burst")
    hub.wait_jobs(1 + retries)

    assert statuses(hub) == [status, "failed"][: 1 + retries]


@pytest.mark.parametrize("first", [True, False], ids=["the job counts, too", "only the grandchild"])
def test_what_a_job_forks_hands_its_measurements_over(hub, producer, first):
    hub.queue().enqueue("odd_jobs.counts_in_a_grandchild", first)
    hub.burst()
    hub.work("truth_work.py", "next")

    assert (total(hub, "odd.count"), total(hub, "odd.own")) == (1 + first, 1)


@pytest.fixture
def switched(hub, tmp_path):
    """Runs a job, and has the switch turned while it is at it."""
    off, path = tmp_path / "spool" / "hub@off", tmp_path / "running"
    off.parent.mkdir(exist_ok=True)

    def run(*, off_first):
        def turn(*, to_off):
            off.write_text("{}") if to_off else off.unlink(missing_ok=True)

        turn(to_off=off_first)
        hub.queue().enqueue("truth_jobs.waits_quietly", str(path))
        worker = hub.start("truth_work.py", "Worker", "burst")
        wait_for(lambda: path.exists() and path.read_text(), 30, f"the job\n{hub.said()}")
        turn(to_off=not off_first)
        time.sleep(SWITCH)
        path.with_name("running.go").touch()
        assert worker.wait(30) == 0
        turn(to_off=False)
        hub.work("truth_work.py", "next")

    return run


def test_what_was_begun_before_telemetry_was_switched_off_is_told_when_it_is_on_again(hub, producer, switched):
    switched(off_first=False)
    hub.wait_jobs(1)

    assert statuses(hub) == ["finished"]
    assert total(hub, "rq.job.executions") == 1


def test_what_was_begun_while_telemetry_was_off_is_not_said_to_have_vanished(hub, producer, switched):
    switched(off_first=True)

    assert statuses(hub) == []
    assert "vanished" not in str(hub.metric("rq.job.executions"))


@pytest.mark.parametrize("worker", ["Worker", "SimpleWorker"])
def test_a_job_that_worked_a_queue_off_and_failed_says_by_what(hub, producer, worker):
    rq.Queue("inner", connection=hub.redis).enqueue("truth_jobs.ok")
    hub.queue().enqueue("odd_jobs.works_a_queue_off_and_fails", "inner")
    hub.burst(worker)
    hub.wait_jobs(2)

    told = {attributes(span)["rq.job.function"]: attributes(span) for span in hub.jobs}
    assert told["truth_jobs.ok"]["rq.job.status"] == "finished"
    failed = told["odd_jobs.works_a_queue_off_and_fails"]
    assert (failed["rq.job.status"], failed.get("error.type")) == ("failed", "ValueError")


def test_counters_of_a_worker_within_a_work_horse_come_all_the_way(hub, producer):
    inner = rq.Queue("inner", connection=hub.redis)
    inner.enqueue("truth_jobs.ok")
    inner.enqueue("truth_jobs.fails")
    inner.enqueue("odd_jobs.count")
    hub.queue().enqueue("odd_jobs.works_a_queue_off_in_forks", "inner")
    hub.burst()
    hub.work("truth_work.py", "next")

    assert sorted(statuses(hub)) == ["failed", "finished", "finished", "finished"]
    assert (total(hub, "rq.job.executions"), total(hub, "odd.count")) == (4, 1)


# -- no room


@pytest.mark.parametrize("then", ["", "fails"])
def test_an_end_for_which_there_is_no_room_is_told_by_the_worker(hub, producer, then):
    """A spool in memory, which has one segment for a job."""
    hub.queue().enqueue("odd_jobs.leaves_no_room", then)
    hub.work("odd_work.py", "Worker", ODD_MEMORY="1")
    (span,) = hub.wait_jobs(1)

    assert attributes(span)["rq.job.status"] == ("failed" if then else "finished")
    assert attributes(span).get("error.type") == ("ValueError" if then else None)
    assert attributes(span)["odd.before"] == "the flood"
    assert total(hub, "rq.job.executions") == 1


# -- what others left


def test_what_a_job_finds_abandoned_is_told(hub, producer):
    """RQ's statistics clean up, also when a job asks for them."""
    job = hub.queue().enqueue("truth_jobs.ok")
    began = datetime.now(UTC) - timedelta(minutes=10)
    with hub.redis.pipeline() as pipeline:
        execution = rq.executions.Execution.create(job, ttl=1, pipeline=pipeline)
        job.prepare_for_execution("elsewhere", pipeline)
        pipeline.execute()
    job.started_at, job.last_heartbeat = began, began + timedelta(minutes=5)
    job.save()
    hub.redis.zadd("rq:wip:default", {f"{job.id}:{execution.id}": time.time() - 100})
    hub.redis.lrem("rq:queue:default", 0, job.id)
    hub.redis.set("rq:clean_registries:default", "1", ex=100)  # leaves it to the job
    hub.queue().enqueue("odd_jobs.cleans_up")
    hub.burst()
    hub.wait_jobs(2)

    assert sorted(statuses(hub)) == ["abandoned", "finished"]
    assert total(hub, "rq.job.executions") == 2


def test_a_job_that_ran_and_is_cancelled_by_whoever_enqueued_it_has_run(hub, producer):
    job = hub.queue().enqueue("truth_jobs.ok")
    hub.burst()
    hub.wait_jobs(1)
    job.cancel()

    assert not [log for log in producer.logs if log.attributes.get("rq.job.status") == "canceled"]
