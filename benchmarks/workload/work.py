"""A measured process with RQ: `work.py worker JOBS` runs jobs in forked work-horses, `work.py enqueue JOBS` enqueues. Prints JSON."""

import json
import sys
import time
from typing import Any

import usage
import variants

WARM_UP = 20


def queue() -> Any:
    """An empty queue."""
    import redis
    from django.conf import settings
    from rq import Queue

    connection = redis.Redis(port=settings.REDIS_PORT)
    connection.flushdb()
    return Queue("default", connection=connection)


def enqueue(jobs: Any, count: int) -> None:
    """Fill the queue."""
    import shop

    for number in range(count):
        jobs.enqueue(shop.job, number)


def work(jobs: Any, count: int) -> None:
    """Empty the queue with a worker as it comes, which forks for each job; none may fail."""
    from rq import Worker

    worker = Worker([jobs], connection=jobs.connection)
    worker.work(burst=True, logging_level="WARNING")
    done = jobs.finished_job_registry.get_job_count(cleanup=False)
    if done != count:
        raise SystemExit(f"{done} of {count} jobs finished")


def measured(jobs: Any, what: str, count: int) -> dict[str, Any]:
    """CPU per job, with what it takes to send the telemetry."""
    cpu, thread, faults, start = usage.cpu(), time.thread_time(), usage.faults(), time.perf_counter()
    if what == "enqueue":
        enqueue(jobs, count)
    else:
        work(jobs, count + WARM_UP)
    wall, in_thread = time.perf_counter() - start, time.thread_time() - thread
    variants.flush()
    return {
        "cpu_us": (usage.cpu() - cpu) / count * 1e6,
        "wall_us": wall / count * 1e6,
        "thread_us": in_thread / count * 1e6,
        "faults": (usage.faults() - faults) / count,
    }


def main(what: str, count: int) -> None:
    """Warm up, flush, measure, tell."""
    variants.start()
    jobs = queue()
    enqueue(jobs, WARM_UP)
    if what == "worker":
        work(jobs, WARM_UP)
        enqueue(jobs, count)
    variants.flush()
    result = measured(jobs, what, count)
    variants.check()
    print(json.dumps({"served": count + WARM_UP, "ended": usage.memory(), **result}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
