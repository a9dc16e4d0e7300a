"""Where jobs come from: a process of another service, which enqueues what it reads and says under which ID."""

import json
import os
import sys

import floor_telemetry  # noqa: F401
import redis
import rq

import chegou_otel

OPTIONS = {
    "retried": {"retry": rq.Retry(max=1)},
    "orphan_retried": {"retry": rq.Retry(max=1)},
    "busy_1s": {"job_timeout": 1},
    "busy_3s": {"job_timeout": 3},
}

queue = rq.Queue(connection=redis.Redis(port=int(os.environ["FLOOR_REDIS_PORT"])))
numbers = iter(range(1, 1_000_000))


def enqueue(name, **more):
    with chegou_otel.use_correlation_id(f"floor-{name.replace('_', '-')}-{next(numbers):06d}") as known:
        job = queue.enqueue(
            f"floor_jobs.{name.partition('_')[0] if name.startswith('busy') else name}",
            **{"job_timeout": 60, **OPTIONS.get(name, {}), **more},
        )
    said.append([name, job.id, known])
    return job


def take(name):
    if name == "dependent":
        enqueue("dependent", depends_on=enqueue("first"))
    elif name == "cancelled":
        enqueue("cancelled", depends_on=enqueue("before_cancelled")).cancel()
    else:
        enqueue(name)


for line in sys.stdin:
    said = []
    for name in line.split():
        take(name)
    print(json.dumps(said), flush=True)
