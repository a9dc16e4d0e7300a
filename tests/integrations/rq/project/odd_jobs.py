"""Jobs that do to telemetry what few do."""

from __future__ import annotations

import logging
import os
import time


def count(name="odd.count"):
    from opentelemetry import metrics

    metrics.get_meter("odd").create_counter(name).add(1)


def flushes_and_counts():
    from opentelemetry import metrics

    metrics.get_meter_provider().force_flush()
    count()


def adds_a_processor(path):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor

    class Notes(SpanProcessor):
        def on_end(self, span):
            with open(path, "a") as file:
                file.write(span.name + "\n")

    trace.get_tracer_provider().add_span_processor(Notes())


def shuts_down():
    import chegou_otel

    chegou_otel.shutdown()


def sets_up_anew(spool):
    """And counts; how many measurements it wrote for somebody else."""
    import chegou_otel
    from chegou_otel.delivery.frames import W_CREATED, Kind

    chegou_otel.shutdown()
    telemetry = chegou_otel.setup("odd", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=spool, active="always")
    count()
    telemetry.flush(3)
    time.sleep(1.5)  # a round of its courier
    return sum(segment.longs[W_CREATED + Kind.MEASUREMENT] for segment in telemetry.runtime.recorder.pool.all())


def counts_in_a_grandchild(first):
    from chegou_otel import _setup

    if first:
        count()
    pid = os.fork()
    if not pid:
        try:
            count()
            _setup._current.runtime.metrics.counter("odd.own").series().add(1)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def works_a_queue_off_and_fails(name):
    """A worker within a job."""
    import redis
    import rq

    rq.SimpleWorker([name], connection=redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))).work(burst=True)
    raise ValueError("after all that work")


def tells(number):
    logging.getLogger("odd").warning("told by %d", number)
    count()
