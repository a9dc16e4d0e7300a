"""A worker of the class that is named, with `setup()` called as in a script: ``work.py Worker [burst]``."""

from __future__ import annotations

import os
import sys

import chegou_otel

if "HUB_NO_SETUP" not in os.environ:
    chegou_otel.setup("hub", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"], active="always")

import redis  # noqa: E402
import rq.worker  # noqa: E402

if "HUB_KILL_BEFORE_LOADING" in os.environ:
    rq.worker.Worker.prepare_job_execution = lambda *_args, **_options: os.kill(os.getpid(), 9)
if "HUB_SHOW_SITES" in os.environ:
    bridge = chegou_otel.setup().runtime.bridge
    learn = bridge.learn
    bridge.learn = lambda line: print("learned", line.function, "in", os.getpid(), flush=True) or learn(line)

if __name__ == "__main__":
    connection = redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))
    getattr(rq.worker, sys.argv[1])(["default"], connection=connection).work(burst=sys.argv[2:] == ["burst"])
