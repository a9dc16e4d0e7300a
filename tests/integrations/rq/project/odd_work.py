"""Workers that watch their work-horses in ways of their own: ``odd_work.py CLASS``."""

from __future__ import annotations

import inspect
import logging
import os
import sys

import chegou_otel

memory = os.environ.get("ODD_MEMORY")
telemetry = chegou_otel.setup(
    "hub",
    endpoint=os.environ["HUB_ENDPOINT"],
    active="always",
    **({"spool": "memory"} if memory else {"spool_dir": os.environ["HUB_SPOOL"]}),
)

import redis  # noqa: E402
import rq.job  # noqa: E402
import rq.worker  # noqa: E402


class OwnMonitor(rq.worker.Worker):
    def monitor_work_horse(self, job, queue, *execution):
        self.wait_for_horse()
        self._horse_pid = 0


class OwnExecute(rq.worker.Worker):
    def execute_job(self, job, queue):
        self.prepare_execution(job)
        self.fork_work_horse(job, queue)
        self.wait_for_horse()
        self._horse_pid = 0
        self.set_state("idle")


class OwnFork(rq.worker.Worker):
    def fork_work_horse(self, job, queue):
        self._horse_pid = os.fork()
        if not self._horse_pid:
            os.setpgrp()
            self.main_work_horse(job, queue)
            os._exit(0)


class ForksItself:
    """A mixin, and no Worker."""

    def fork_work_horse(self, job, queue):
        self._horse_pid = os.fork()
        if not self._horse_pid:
            self._is_horse = True
            more = (self.execution,) if "execution" in inspect.signature(rq.worker.Worker.perform_job).parameters else ()
            try:
                self.perform_job(job, queue, *more)
            finally:
                os._exit(0)


class OwnHorse(ForksItself, rq.worker.Worker):
    pass


class Forks(ForksItself, rq.worker.Worker):
    pass


class Shouts(rq.worker.Worker):
    def work(self, *args, **kwargs):
        print("work is done my way", flush=True)
        return super().work(*args, **kwargs)

    def perform_job(self, *args):
        print("a job is performed my way", flush=True)
        return super().perform_job(*args)


class Heir(Forks, Shouts):
    """Two bases, of which the second overrides what the first inherits."""


class LogsFirst(rq.worker.Worker):
    def fork_work_horse(self, job, queue):
        self._horse_pid = os.fork()
        if not self._horse_pid:
            os.setpgrp()
            logging.getLogger("odd").warning("first of all")
            self.main_work_horse(job, queue)
            os._exit(0)


class Refetches(rq.worker.Worker):
    def perform_job(self, job, queue, *execution):
        return super().perform_job(rq.job.Job.fetch(job.id, connection=self.connection), queue, *execution)


class Around(rq.worker.Worker):
    """Does something of its own around what RQ does."""

    def execute_job(self, *args):
        print("about to execute", flush=True)
        super().execute_job(*args)

    def monitor_work_horse(self, *args):
        super().monitor_work_horse(*args)
        print("gone", flush=True)


class Announces(rq.worker.Worker):
    def fork_work_horse(self, job, queue):
        print("about to fork", flush=True)
        super().fork_work_horse(job, queue)


if __name__ == "__main__":
    kind = globals().get(sys.argv[1]) or getattr(rq.worker, sys.argv[1])
    kind(["default"], connection=redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))).work(burst=True)
