"""Jobs that do to telemetry what few do."""

from __future__ import annotations

import logging
import os
import threading
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


def shuts_down_and_fails():
    shuts_down()
    raise ValueError("no luck")


def cleans_up():
    """As a job that watches a queue does: RQ's counts clean first."""
    import redis
    import rq

    registry = rq.registry.StartedJobRegistry("default", connection=redis.Redis(port=int(os.environ["HUB_REDIS_PORT"])))
    registry.cleanup(timestamp=time.time())


def leaves_no_room(then=""):
    """Records more than a segment takes, and goes on until not even the smallest frame finds room."""
    from opentelemetry import trace

    tracer = trace.get_tracer("odd")
    trace.get_current_span().set_attribute("odd.before", "the flood")
    for size, times in ((30_000, 160), (10, 4_000)):
        for _ in range(times):
            with tracer.start_as_current_span("flood", attributes={"odd.filler": "x" * size}):
                pass
    if then:
        raise ValueError("no luck")


def works_a_queue_off_in_forks(name):
    import redis
    import rq

    rq.Worker([name], connection=redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))).work(burst=True)


def counts_for_a_while():
    """Twenty, in more than two rounds of a courier."""
    from opentelemetry import trace

    for _ in range(20):
        count()
        with trace.get_tracer("odd").start_as_current_span("inner"):
            time.sleep(0.13)


def enqueues_elsewhere():
    import redis
    import rq

    rq.Queue("elsewhere", connection=redis.Redis(port=int(os.environ["HUB_REDIS_PORT"]))).enqueue("truth_jobs.ok")


def enqueues_elsewhere_later():
    global later
    later = threading.Timer(0.3, enqueues_elsewhere)
    later.start()


def looks_at_itself():
    """The command line that others can read, and the environment that it would hand on."""
    with open("/proc/self/cmdline") as file:
        return file.read(), dict(os.environ)
