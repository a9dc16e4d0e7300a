"""CPU seconds and memory growth of every execution, however it ends and whoever tells it."""

from __future__ import annotations

import time

import pytest

from chegou_otel.integrations.rq import resources
from tests.integrations.rq.conftest import attributes

pytestmark = pytest.mark.slow

MIB = 1 << 20


def run(hub, worker, name, *args, ballast=0):
    hub.queue().enqueue(f"truth_jobs.{name}", *args)
    hub.work("truth_work.py", worker, "burst", TRUTH_BALLAST=str(ballast))
    (span,) = hub.wait_jobs(1)
    return attributes(span)


@pytest.mark.parametrize(
    ("worker", "then", "status"),
    [
        ("Worker", "", "finished"),
        ("Worker", "fail", "failed"),
        ("Worker", "die", "killed"),
        ("SpawnWorker", "", "finished"),
        ("SpawnWorker", "fail", "failed"),
    ],
)
def test_50_mb_read_50_under_a_parent_of_200(hub, worker, then, status):
    told = run(hub, worker, "allocates", 50, then, ballast=200)

    assert told["rq.job.status"] == status
    assert 40 * MIB < told["rq.job.memory_growth"] < 60 * MIB, told["rq.job.memory_growth"] / MIB
    if worker == "Worker":
        assert told["rq.job.peak_memory"] > 240 * MIB, "the raw peak includes what was inherited"
    assert sum(hub.metric("rq.job.memory_growth").values()) == 1


def test_a_killed_spawned_work_horse_reads_nothing_rather_than_its_parent_s_peak(hub):
    """Across an ``exec`` the kernel keeps the peak of the process that spawned."""
    told = run(hub, "SpawnWorker", "allocates", 50, "die", ballast=200)

    assert told["rq.job.status"] == "killed"
    assert "rq.job.memory_growth" not in told


def test_a_killed_spawned_work_horse_reads_its_growth_where_it_rose_above_its_parent(hub):
    told = run(hub, "SpawnWorker", "allocates", 100, "die")

    assert 90 * MIB < told["rq.job.memory_growth"] < 110 * MIB


def test_a_simple_worker_s_first_large_job_reads_its_growth_and_a_small_one_after_it_little(hub):
    hub.queue().enqueue("truth_jobs.allocates", 50)
    hub.queue().enqueue("truth_jobs.allocates", 1)
    hub.work("truth_work.py", "SimpleWorker", "burst", TRUTH_BALLAST="20")
    first, second = (attributes(span)["rq.job.memory_growth"] for span in hub.wait_jobs(2))

    assert 40 * MIB < first < 60 * MIB
    assert second < 10 * MIB


@pytest.mark.parametrize("worker", ["Worker", "SpawnWorker", "SimpleWorker"])
@pytest.mark.parametrize("child", [False, True], ids=["itself", "a child that it waited for"])
def test_cpu_seconds(hub, worker, child):
    told = run(hub, worker, "burns", 0.4, child)

    assert 0.39 < told["rq.job.cpu_time"] < 2.0


def test_cpu_seconds_of_a_killed_one_come_from_the_kernel(hub):
    told = run(hub, "Worker", "burns", 0.4, False, "die")

    assert told["rq.job.status"] == "killed"
    assert 0.39 < told["rq.job.cpu_time"] < 1.0


def test_measuring_is_cheap():
    """Some ten microseconds a job, 100 on a slow machine; to read the maps of a process, as others do, takes milliseconds."""
    rounds, best = 500, 1.0
    for _ in range(5):
        started = time.thread_time()
        for _ in range(rounds):
            resources.spent(resources.begin())
        best = min(best, (time.thread_time() - started) / rounds)

    assert best < 500e-6, f"{best * 1e6:.1f} µs"
