"""Processes of a service: ``truth_work.py Worker [burst]``, ``next``, ``clean``, ``adopt``, ``preload FILE``.

``TRUTH_BALLAST``: mebibytes that it holds.
"""

from __future__ import annotations

import logging
import os
import sys
import time

import chegou_otel

service = os.environ.get("TRUTH_SERVICE", "hub")
telemetry = chegou_otel.setup(service, endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"], active="always")

import redis  # noqa: E402
import rq.registry  # noqa: E402
import rq.worker  # noqa: E402

connection = redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))
if __name__ == "__main__":
    what, ballast = sys.argv[1], b"x" * (int(os.environ.get("TRUTH_BALLAST", "0")) << 20)
    queue = rq.Queue(connection=connection)
    if what == "next":  # whatever lies there is adopted, told and sent
        telemetry.runtime.recorder.start()
        assert telemetry.flush(20)
    elif what == "adopt":  # and goes on, until it is killed
        telemetry.runtime.recorder.start()
        while not telemetry.runtime.recorder.pool.adopted:
            time.sleep(0.01)
        telemetry.flush(5)
        print("adopted", flush=True)
        time.sleep(60)
    elif what == "preload":  # adopts, and forks one that serves once there is such a file
        telemetry.runtime.recorder.start()
        while not telemetry.runtime.recorder.pool.adopted:
            time.sleep(0.01)
        telemetry.flush(5)
        if os.fork():
            print("adopted", flush=True)
            time.sleep(60)
        while not os.path.exists(sys.argv[2]):
            time.sleep(0.01)
        logging.getLogger("preload").warning("at work")
        assert telemetry.flush(20)
        print("served", flush=True)
    elif what == "clean":
        rq.registry.StartedJobRegistry("default", connection=connection).cleanup(timestamp=time.time() + 10_000)
        assert telemetry.flush(20)
    else:
        getattr(rq.worker, what)(["default"], connection=connection).work(burst=sys.argv[2:] == ["burst"])
