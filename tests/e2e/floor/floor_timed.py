"""A forking worker that works as it is told (`COUNT` lines on its standard input) and says how long each job took it, and each gap."""

import json
import os
import sys
import time

if "FLOOR_NO_SETUP" not in os.environ:
    import floor_telemetry  # noqa: F401 - first of all

import redis
import rq


class Worker(rq.Worker):
    times: list = []

    def execute_job(self, *args):
        began = time.perf_counter()
        super().execute_job(*args)
        self.times.append((began, time.perf_counter()))


queue = rq.Queue(os.environ["FLOOR_QUEUE"], connection=redis.Redis(port=int(os.environ["FLOOR_REDIS_PORT"])))
for line in sys.stdin:
    for _ in range(int(line)):
        queue.enqueue("floor_jobs.tiny")
    Worker.times.clear()
    Worker([queue], connection=queue.connection).work(burst=True, max_jobs=int(line), logging_level="WARNING")
    times = Worker.times
    gaps = [after[0] - before[1] for before, after in zip(times, times[1:], strict=False)]
    print(json.dumps({"jobs": [end - began for began, end in times], "gaps": gaps}), flush=True)
