"""Worker classes by name. SpawnWorker wants classes that can be imported."""

import rq
import rq.worker
import rq.worker_pool


class HerokuWorker(rq.worker.HerokuWorker):
    imminent_shutdown_delay = 2  # as much as a test has time for


def work(connection, name, *, burst):
    if name == "WorkerPool":
        rq.worker_pool.WorkerPool(["default"], connection=connection, num_workers=2).start(burst=burst)
        return
    made = HerokuWorker if name == "HerokuWorker" else getattr(rq.worker, name)
    made(["default"], connection=connection).work(burst=burst)
