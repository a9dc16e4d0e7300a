"""A worker of the class that is named, with `setup()` called as in a script: ``work.py Worker [burst]``."""

from __future__ import annotations

import logging
import os
import sys

import chegou_otel

if "HUB_NO_SETUP" not in os.environ:
    chegou_otel.setup("hub", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"], active="always")

import redis  # noqa: E402
import rq.worker  # noqa: E402

if "HUB_KILL_BEFORE_LOADING" in os.environ:
    rq.worker.Worker.prepare_job_execution = lambda *_args, **_options: os.kill(os.getpid(), 9)


class Overriding(rq.worker.Worker):
    """Does something of its own in the work-horse before RQ does anything."""

    def main_work_horse(self, *args):
        logging.getLogger("hub.jobs").warning("first of all, with %d threads", len(sys._current_frames()))
        if "HUB_KILL_AT_ONCE" in os.environ:
            os.kill(os.getpid(), 9)
        super().main_work_horse(*args)


rq.worker.Overriding = Overriding
if "HUB_SHOW_SITES" in os.environ:
    bridge = chegou_otel.setup().runtime.bridge
    learn = bridge.learn
    bridge.learn = lambda line: print("learned", line.function, "in", os.getpid(), flush=True) or learn(line)

if __name__ == "__main__":
    connection = redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))
    getattr(rq.worker, sys.argv[1])(["default"], connection=connection).work(burst=sys.argv[2:] == ["burst"])
