"""RQ without one of its hooks, as another version might be: ``hidden.py rq.job Job restore``.

The attribute is gone from the class, which is what ``setup()`` looks at; RQ's own calls still find it.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys

import redis
import rq
import rq.cron
import rq.group
import rq.worker

module, owner_name, name = sys.argv[1:4]
owner = getattr(importlib.import_module(module), owner_name)
original = vars(owner)[name]
delattr(owner, name)


def found_all_the_same(self, wanted):
    if wanted != name:
        raise AttributeError(wanted)
    return functools.partial(original, self)


owner.__getattr__ = found_all_the_same
before = {key: value for each in (rq.job.Job, rq.Queue, rq.worker.base.BaseWorker) for key, value in vars(each).items()}

import chegou_otel  # noqa: E402 - RQ is as it is by now

telemetry = chegou_otel.setup("hub", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"], active="always")
connection = redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))
queue = rq.Queue(connection=connection)
job = queue.enqueue("hub_jobs.ok", "x")
later = queue.enqueue_many([rq.Queue.prepare_data("hub_jobs.ok", ("y",))])[0]
getattr(rq.worker, sys.argv[4])([queue], connection=connection).work(burst=True)
patched = [
    key for each in (rq.job.Job, rq.Queue, rq.worker.base.BaseWorker) for key, value in vars(each).items() if before.get(key) is not value
]
print(json.dumps({"skipped": dict(telemetry.skipped), "patched": patched, "done": [str(each.get_status().value) for each in (job, later)]}))
