"""What the reporter reads, against what RQ says itself, and that it changes nothing."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
import rq
from rq import registry
from rq.cron import CronScheduler

from chegou_otel.integrations.rq import connection
from chegou_otel.integrations.rq.reading import GAUGES, WORKER_STATES, Reader

READS = {"zcard", "zcount", "zrange", "llen", "lindex", "lrange", "hget", "hmget", "smembers"}
STATUSES = {
    "started": registry.StartedJobRegistry, "deferred": registry.DeferredJobRegistry, "failed": registry.FailedJobRegistry,
    "finished": registry.FinishedJobRegistry, "canceled": registry.CanceledJobRegistry, "scheduled": registry.ScheduledJobRegistry,
}  # fmt: skip


def gauges(client, name, clock=time.time):
    """Values of one gauge by their labels' values."""
    found = {}
    for gauge, labels, value in Reader(connection.like(client), "rq", clock).read():
        assert gauge in GAUGES
        if gauge == name:
            key = tuple(text for _, text in labels)
            assert key not in found, f"{gauge} {key} came twice"
            found[key] = value
    return found


def fill(client, name="default"):
    """Jobs of every status."""
    queue = rq.Queue(name, connection=client)
    first = queue.enqueue("measured_jobs.counted")
    queue.enqueue("measured_jobs.counted", depends_on=first)
    queue.enqueue("measured_jobs.counted").cancel()
    queue.enqueue_in(timedelta(hours=1), "measured_jobs.counted")
    for _ in range(2):
        rq.SimpleWorker([queue], connection=client).work(burst=True, max_jobs=1)
    queue.enqueue("measured_jobs.counted", depends_on=queue.enqueue("measured_jobs.refuse", "secret"))
    queue.enqueue("measured_jobs.counted", at_front=True)
    rq.SimpleWorker([queue], connection=client).work(burst=True, max_jobs=2)
    for _ in range(3):
        queue.enqueue("measured_jobs.counted")
    return queue


def test_every_registry_of_every_queue_reads_as_rq_counts_it(redis_client):
    queue = fill(redis_client)
    rq.Queue("other", connection=redis_client).enqueue("measured_jobs.counted")

    found = gauges(redis_client, "rq.queue.jobs", lambda: time.time() + 60)
    for status, kind in STATUSES.items():
        assert found["default", status] == kind(queue=queue).get_job_count(cleanup=False), status
    assert found["default", "queued"] == len(queue) == 3
    assert found["other", "queued"] == 1
    assert {status for name, status in found if name == "other"} == {*STATUSES, "queued", "intermediate", "ready", "rate_limited"}
    assert min(found["default", status] for status in ("deferred", "failed", "finished", "canceled", "scheduled")) >= 1


def test_ready_and_rate_limited_jobs_belong_to_their_queues(redis_client):
    rate_limit = pytest.importorskip("rq.rate_limit", reason="not in RQ 2")
    queues = [rq.Queue(name, connection=redis_client) for name in ("slow", "slower")]
    for queue in queues:
        for _ in range(3):
            queue.enqueue("measured_jobs.counted", rate_limit=rate_limit.RateLimit("api", 1))
    redis_client.zadd(registry.ReadyJobRegistry(queue=queues[0]).key, {"some-job": time.time()})

    found = gauges(redis_client, "rq.queue.jobs")
    assert (found["slow", "queued"], found["slow", "rate_limited"], found["slow", "ready"]) == (1, 2, 1)
    assert (found["slower", "queued"], found["slower", "rate_limited"]) == (0, 3)


def test_of_too_many_rate_limited_jobs_the_rest_has_no_queue(redis_client, monkeypatch):
    rate_limit = pytest.importorskip("rq.rate_limit", reason="not in RQ 2")
    from chegou_otel.integrations.rq import reading

    monkeypatch.setattr(reading, "MAX_ORIGINS", 2)
    queue = rq.Queue(connection=redis_client)
    for _ in range(6):
        queue.enqueue("measured_jobs.counted", rate_limit=rate_limit.RateLimit("api", 1))

    found = gauges(redis_client, "rq.queue.jobs")
    assert (found["default", "rate_limited"], found["_OTHER", "rate_limited"]) == (2, 3)


def test_the_oldest_job_counts_though_another_was_put_in_front(redis_client):
    queue = rq.Queue(connection=redis_client)
    queue.enqueue("measured_jobs.counted")
    queue.enqueue("measured_jobs.counted", at_front=True)
    deleted = queue.enqueue("measured_jobs.counted", at_front=True)
    redis_client.delete(deleted.key)
    job_id = redis_client.lindex(queue.key, -1).decode()
    redis_client.hset(f"rq:job:{job_id}", "enqueued_at", (datetime.now(UTC) - timedelta(seconds=90)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    assert gauges(redis_client, "rq.queue.oldest_job_age")["default",] == pytest.approx(90, abs=5)
    redis_client.delete(queue.key)
    assert gauges(redis_client, "rq.queue.oldest_job_age") == {("default",): 0.0}


def test_a_scheduled_job_that_nobody_promotes_is_late(redis_client):
    queue = rq.Queue(connection=redis_client)
    queue.enqueue_in(timedelta(seconds=30), "measured_jobs.counted")

    assert gauges(redis_client, "rq.queue.scheduled_lateness")["default",] == 0
    late = gauges(redis_client, "rq.queue.scheduled_lateness", lambda: time.time() + 100)
    assert late["default",] == pytest.approx(70, abs=5)


def test_workers_count_by_state_and_those_without_a_sign_of_life_do_not(redis_client):
    workers = [rq.Worker(["default"], connection=redis_client) for _ in range(4)]
    for worker, state in zip(workers, ("idle", "busy", "busy", "suspended"), strict=True):
        worker.register_birth()
        worker.set_state(state)
    assert gauges(redis_client, "rq.workers") == {("started",): 0, ("busy",): 2, ("idle",): 1, ("suspended",): 1}

    workers[0].register_death()
    redis_client.delete(workers[1].key)  # killed: its entry expired, and nobody has cleaned up
    redis_client.hset(workers[2].key, "last_heartbeat", "2026-01-01T00:00:00.000000Z")
    assert gauges(redis_client, "rq.workers") == {**dict.fromkeys([(state,) for state in WORKER_STATES], 0), ("suspended",): 1}


def test_a_cron_job_is_late_when_its_scheduler_is(redis_client):
    scheduler = CronScheduler(connection=redis_client)
    scheduler.register(json.dumps, "default", args=("secret-argument",), interval=60)
    scheduler.register_birth()
    assert gauges(redis_client, "rq.cron.lateness") == {("json.dumps",): 0}
    scheduler.enqueue_jobs()
    scheduler.save()

    assert gauges(redis_client, "rq.cron.schedulers") == {(): 1}
    assert gauges(redis_client, "rq.cron.lateness") == {("json.dumps",): 0}
    late = gauges(redis_client, "rq.cron.lateness", lambda: time.time() + 100)
    assert late["json.dumps",] == pytest.approx(40, abs=5)
    assert gauges(redis_client, "rq.cron.last_enqueue_age", lambda: time.time() + 100)["json.dumps",] == pytest.approx(100, abs=5)
    # It has sent no sign of life for longer than RQ allows: it is gone, and that is what is told.
    assert gauges(redis_client, "rq.cron.schedulers", lambda: time.time() + 200) == {(): 0}
    assert gauges(redis_client, "rq.cron.lateness", lambda: time.time() + 200) == {}


def contents(client):
    return {key: client.dump(key) for key in client.scan_iter()}


def test_reading_only_reads_even_where_rq_would_clean_up(redis_client):
    """A failed job past its time, an abandoned one, a dead worker, a stale cron scheduler: RQ's own counting would remove each."""
    queue = fill(redis_client)
    past = time.time() - 1_000
    abandoned = queue.enqueue("measured_jobs.counted")
    redis_client.zadd(registry.StartedJobRegistry(queue=queue).key, {f"{abandoned.id}:some-execution": past})
    redis_client.zadd(registry.FailedJobRegistry(queue=queue).key, {"some-job": past})
    redis_client.sadd("rq:workers", "rq:worker:gone")
    redis_client.zadd("rq:cron_schedulers", {"gone": past})
    before = contents(redis_client)
    redis_client.config_resetstat()

    found = gauges(redis_client, "rq.queue.jobs")

    used = {name.removeprefix("cmdstat_") for name in redis_client.info("commandstats")} - {"info", "config|resetstat"}
    assert {name for name in used if not name.startswith(("client|", "hello"))} <= READS
    assert contents(redis_client) == before
    assert (found["default", "started"], found["default", "failed"]) == (0, 1)  # nor are they counted
