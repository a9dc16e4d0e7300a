"""Old and new side by side, and an RQ that is not the one we know: everything runs, and what is known is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import rq

import chegou_otel
from chegou_otel.integrations.rq import carrier
from tests.integrations.rq.conftest import PROJECT, attributes
from tests.integrations.rq.ways import unseen

pytestmark = pytest.mark.slow


@pytest.fixture
def bare(hub, tmp_path):
    """Run a command where this package cannot even be imported, though it may be installed."""
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    (nowhere / "chegou_otel.py").write_text("raise ModuleNotFoundError(__name__)\n")

    def run(*command):
        hub.work(*command, PYTHONPATH=f"{nowhere}:{PROJECT}", HUB_NO_SETUP="1")

    run("-c", "try: import chegou_otel\nexcept ModuleNotFoundError: raise SystemExit(0)\nraise SystemExit(1)")
    return run


def worker(hub, *more):
    return ("-m", "rq.cli", "worker", "--url", f"redis://127.0.0.1:{hub.redis_port}", "--burst", *more)


def enqueue_bare(bare, hub, call):
    bare("-c", f"import redis, rq, datetime, hub_jobs; q = rq.Queue(connection=redis.Redis(port={hub.redis_port})); q.{call}")


def status(hub):
    with unseen():
        return [job.get_status().value for job in rq.job.Job.fetch_many([*hub.queue().finished_job_registry.get_job_ids()], hub.redis)]


def test_what_the_web_enqueues_runs_on_workers_without_the_package(hub, telemetry, bare):
    job = hub.queue().enqueue("hub_jobs.ok", "x", retry=rq.Retry(max=1), meta={"mine": 1})
    sent = telemetry.span("send default")
    bare(*worker(hub))

    assert status(hub) == ["finished"]
    with unseen():
        assert job.meta == {"mine": 1}
        assert carrier.of(rq.job.Job.fetch(job.id, connection=hub.redis)).span_id == sent.span_id


def test_a_retry_joins_its_producer_although_the_first_attempt_ran_without_the_package(hub, telemetry, bare, tmp_path):
    with chegou_otel.use_correlation_id("order-0001"):
        hub.queue().enqueue("hub_jobs.fails_until", str(tmp_path / "runs"), 2, retry=rq.Retry(max=2))
    bare(*worker(hub, "--max-jobs", "1"))
    hub.burst()
    (second,) = hub.wait_jobs(1)

    sent, told = telemetry.span("send default"), attributes(second)
    assert (second.trace_id.hex(), second.parent_span_id.hex()) == (sent.trace_id, sent.span_id)
    assert (told["correlation_id"], told["rq.job.attempt"], told["rq.job.max_attempts"]) == ("order-0001", 2, 3)


def test_a_repeat_is_known_as_one_although_a_worker_without_the_package_scheduled_it(hub, telemetry, bare):
    hub.queue().enqueue("hub_jobs.ok", "x", repeat=rq.Repeat(times=1))
    bare(*worker(hub, "--max-jobs", "1"))
    hub.burst()
    (repeat,) = hub.wait_jobs(1)

    sent = telemetry.span("send default")
    assert (attributes(repeat)["rq.job.repeat"], attributes(repeat)["rq.job.attempt"]) == (1, 1)
    assert repeat.trace_id.hex() != sent.trace_id
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in repeat.links] == [(sent.trace_id, sent.span_id)]


CALLS = {
    "enqueue": "enqueue(hub_jobs.ok, 'x')",
    "enqueue_in": "enqueue_in(datetime.timedelta(0), hub_jobs.ok, 'x')",
    "dependents": "enqueue_many([q.prepare_data(hub_jobs.ok, ('y',), depends_on=[q.enqueue(hub_jobs.ok, 'x')])])",
}


@pytest.mark.parametrize("call", CALLS)
def test_what_was_enqueued_before_the_package_was_installed_begins_stories_at_the_workers(hub, bare, call):
    enqueue_bare(bare, hub, CALLS[call])
    runs = 2 if call == "dependents" else 1
    hub.work(*worker(hub, "--with-scheduler", "-c", "hub_settings"))
    spans = hub.wait_jobs(runs)

    assert status(hub) == ["finished"] * runs
    assert {span.parent_span_id for span in spans} == {b""}
    assert len({attributes(span)["correlation_id"] for span in spans}) == runs
    assert "send default" not in hub.receiver.names()


@pytest.mark.parametrize("worker_class", ["Worker", "SpawnWorker", "SimpleWorker"])
def test_a_retry_of_such_a_job_stays_in_its_story(hub, bare, tmp_path, worker_class):
    enqueue_bare(bare, hub, f"enqueue(hub_jobs.fails_until, {str(tmp_path / 'runs')!r}, 2, retry=rq.Retry(max=1))")
    hub.burst(worker_class)
    first, second = hub.wait_jobs(2)

    assert (first.parent_span_id, second.parent_span_id, second.trace_id) == (b"", first.span_id, first.trace_id)
    assert attributes(first)["correlation_id"] == attributes(second)["correlation_id"]
    assert [attributes(span)["rq.job.attempt"] for span in (first, second)] == [1, 2]


@pytest.mark.parametrize(
    ("worker_class", "text"),
    [
        ("Worker", "2;from;the;future;with;other;parts;and;more"),
        ("SpawnWorker", '{"version": 3}'),
        ("SimpleWorker", "2;from;the;future;with;other;parts;and;more"),
    ],
)
def test_a_carrier_of_a_future_version_is_left_to_that_version(hub, telemetry, worker_class, text):
    job = hub.queue().enqueue("hub_jobs.ok", "x")
    with unseen():
        hub.redis.hset(job.key, carrier.FIELD, text)
    hub.burst(worker_class)
    (span,) = hub.wait_jobs(1)

    assert (attributes(span)["rq.job.status"], span.parent_span_id) == ("finished", b"")
    with unseen():
        assert hub.redis.hget(job.key, carrier.FIELD).decode() == text


def test_more_parts_of_a_later_release_are_no_hindrance(hub, telemetry):
    job = hub.queue().enqueue("hub_jobs.ok", "x")
    sent = telemetry.span("send default")
    with unseen():
        hub.redis.hset(job.key, carrier.FIELD, hub.redis.hget(job.key, carrier.FIELD).decode() + ";later=thing;flag")
    hub.burst()
    (span,) = hub.wait_jobs(1)

    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (sent.trace_id, sent.span_id)


HOOKS = [
    ("rq.job", "Job", "to_dict"),
    ("rq.job", "Job", "restore"),
    ("rq.queue", "Queue", "enqueue_job"),
    ("rq.queue", "Queue", "_enqueue_job"),
    ("rq.queue", "Queue", "schedule_job"),
    ("rq.queue", "Queue", "enqueue_many"),
    ("rq.queue", "Queue", "create_job"),
    ("rq.queue", "Queue", "run_sync"),
    ("rq.group", "Group", "enqueue_many"),
    ("rq.cron", "CronJob", "enqueue"),
    ("rq.cron", "CronScheduler", "start"),
    ("rq.job", "Job", "_execute"),
    ("rq.worker.base", "BaseWorker", "perform_job"),
    ("rq.worker.base", "BaseWorker", "handle_exception"),
]


@pytest.mark.parametrize("hook", HOOKS, ids=".".join)
def test_an_rq_without_one_of_our_hooks_works_and_the_reason_is_told(hub, hook):
    said = subprocess.run(
        [sys.executable, "hidden.py", *hook, "SimpleWorker"],
        cwd=PROJECT,
        env=hub.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])

    assert found["done"] == ["finished", "finished"]
    assert any(hook[2] in f"{name} {reason}" for name, reason in found["skipped"].items()), found["skipped"]
    if hook[2] in ("to_dict", "restore"):
        # Without a carrier nothing tells a new job from one that comes again: no producers, and no half of a carrier.
        assert not {"to_dict", "restore", "enqueue_job", "_enqueue_job", "schedule_job"} & set(found["patched"])
        assert "rq.queue" in found["skipped"]
        assert "send default" not in hub.receiver.names()
    assert os.path.exists(hub.env["HUB_SPOOL"])
