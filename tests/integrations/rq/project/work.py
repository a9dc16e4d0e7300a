"""A worker of the class that is named, with `setup()` called as in a script: ``work.py Worker [burst]``."""

from __future__ import annotations

import os
import sys

import chegou_otel

if "HUB_NO_SETUP" not in os.environ:
    chegou_otel.setup("hub", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"], active="always")

import redis  # noqa: E402
import rq.worker  # noqa: E402

if __name__ == "__main__":
    connection = redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))
    getattr(rq.worker, sys.argv[1])(["default"], connection=connection).work(burst=sys.argv[2:] == ["burst"])
