"""A measured process with RQ: `work.py worker JOBS` has jobs and runs them in forked work-horses, `work.py enqueue 0` enqueues, as it is
ordered to."""

import os
import sys
from collections.abc import Iterable
from typing import Any

import orders
import variants

WARM_UP = 20


class Desk:
    """A queue of this process's own, and a worker for it."""

    def __init__(self) -> None:
        import redis
        from django.conf import settings
        from rq import Queue

        self.queue: Any = Queue(os.environ["BENCH_RUN"], connection=redis.Redis(port=settings.REDIS_PORT, db=settings.REDIS_DATABASE))
        self.queue.connection.flushdb()  # of what earlier rounds left
        self.done = 0

    def enqueue(self, numbers: Iterable[int]) -> None:
        """Fill the queue."""
        import shop

        for number in numbers:
            self.queue.enqueue(shop.job, number)

    def work(self, count: int) -> None:
        """Run that many jobs by a worker as it comes, which forks for each; none may fail."""
        from rq import Worker

        Worker([self.queue], connection=self.queue.connection).work(max_jobs=count, burst=True, logging_level="WARNING")
        self.done += count
        done = self.queue.finished_job_registry.get_job_count(cleanup=False)
        if done != self.done:
            raise SystemExit(f"{done} of {self.done} jobs finished")


def main(what: str, waiting: int) -> None:
    """Warm up, measure, tell."""
    variants.start()
    desk = Desk()
    desk.enqueue(range(WARM_UP))

    def portion(numbers: Iterable[int]) -> None:
        desk.work(len(list(numbers)))

    if what == "worker":
        desk.work(WARM_UP)
        desk.enqueue(range(waiting))
    variants.flush()
    result = orders.obey(portion if what == "worker" else desk.enqueue)
    orders.say({"what": what, "served": result["count"] + WARM_UP, **result})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
