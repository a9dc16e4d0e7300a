"""A worker, with ``setup()`` called as in a script: ``floor_work.py Worker [burst]``."""

import os
import sys

if "FLOOR_NO_SETUP" not in os.environ:
    import floor_telemetry  # noqa: F401 - first of all

import floor_workers
import redis

if __name__ == "__main__":
    floor_workers.work(redis.Redis(port=int(os.environ["FLOOR_REDIS_PORT"])), sys.argv[1], burst=sys.argv[2:] == ["burst"])
