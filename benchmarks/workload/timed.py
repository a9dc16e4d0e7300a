"""A measured process: a forking worker that says how long each job took it, and how long it was until the next one. Nothing is flushed
before the end: with a collector that hangs there is no other end than the exit's deadline."""

import itertools
import json
import os
import sys
import time
from typing import Any

import variants


def main() -> None:
    """Obey `go COUNT` lines; on `end`, tell."""
    variants.start()
    import redis
    import shop
    from django.conf import settings
    from rq import Queue, Worker

    times: list[tuple[float, float]] = []
    jobs: list[float] = []
    gaps: list[float] = []

    class Timed(Worker):  # type: ignore[misc]
        def execute_job(self, *args: Any) -> None:
            began = time.perf_counter()
            super().execute_job(*args)
            times.append((began, time.perf_counter()))

    queue = Queue(os.environ["BENCH_RUN"], connection=redis.Redis(port=settings.REDIS_PORT, db=settings.REDIS_DATABASE))

    def work(count: int) -> None:
        for number in range(count):
            queue.enqueue(shop.job, number)
        times.clear()
        Timed([queue], connection=queue.connection).work(max_jobs=count, burst=True, logging_level="WARNING")

    work(20)
    say("ready")
    for line in sys.stdin:
        order, _, number = line.partition(" ")
        if order.strip() == "end":
            break
        work(int(number))
        jobs += [end - began for began, end in times]
        gaps += [later[0] - earlier[1] for earlier, later in itertools.pairwise(times)]
        say("done")
    variants.check()
    say({"what": "timed", "served": len(jobs) + 20, "jobs": jobs, "gaps": gaps})


def say(answer: object) -> None:
    """A line of JSON."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
