"""Jobs of the tests. Importing this imports the settings, as a Django project's jobs do."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time

if "HUB_SETTINGS_FROM_JOBS" in os.environ:
    import hub_settings  # noqa: F401 - a `setup()` in it runs where the jobs are imported

logger = logging.getLogger("hub.jobs")


def ok(name):
    from opentelemetry import metrics, trace

    trace.get_current_span().set_attribute("hub.name", name)
    logger.warning("ok %s", name)
    metrics.get_meter("hub").create_counter("hub.jobs").add(1)
    return name


def asks_of_abstract_classes():
    """How often Python code decided anew what a number is, for one line of log."""
    called = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    logger.warning("number %s", 5)
    sys.setprofile(None)
    assert "warning" in called
    return called.count("__subclasscheck__")


def fail(secret):
    logger.warning("failing")
    raise ValueError("no luck")


def kill():
    from opentelemetry import trace

    trace.get_current_span().set_attribute("hub.before", "the kill")
    trace.get_current_span().add_event("last words")
    logger.error("about to die")
    with trace.get_tracer("hub").start_as_current_span("inner work"):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(0)


def too_long():
    time.sleep(30)


def own_redis(port):
    import redis

    return redis.Redis(port=port).ping()


def once_then_ok(path):
    """Fails on its first run and succeeds on its second."""
    if not os.path.exists(path):
        open(path, "w").close()
        raise RuntimeError("first time")
    return "second time"


def correlation():
    import chegou_otel

    return chegou_otel.get_correlation_id()


def child_process():
    return subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout


def ping(path):
    with open(path, "a") as file:
        file.write("x")


def busy():
    """Nothing but telemetry, until RQ's alarm."""
    from opentelemetry import trace

    tracer = trace.get_tracer("hub")
    while True:
        with tracer.start_as_current_span("busy"):
            pass


def returns_a_retry():
    import rq

    return None if rq.get_current_job().number_of_retries else rq.Retry(max=1)


def fails_until(path, runs):
    """Fails until it has run that many times."""
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < runs:
        raise RuntimeError("not yet")


def takes_meta():
    """What users do to ``meta``, in a job that is tried again."""
    import rq

    job = rq.get_current_job()
    first = "seen" not in job.meta
    job.meta = {"seen": True}
    job.save_meta()
    if first:
        raise RuntimeError("first time")


def succeeded(job, connection, result, *args, **kwargs):
    connection.incr("callback:succeeded")


def failed(job, connection, *exc_info):
    connection.incr("callback:failed")


def enqueues(port):
    import redis
    import rq

    rq.Queue(connection=redis.Redis(port=port)).enqueue(ok, "from a job")


class Mine:
    """An argument whose unpickling is told."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return unpickled, (self.path,)


def unpickled(path):
    with open(path, "a") as file:
        file.write("unpickled\n")
    return Mine(path)


def fails_at(path, run):
    """Fails when it runs for the n-th time, and only then."""
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) == run:
        raise RuntimeError("this time")


def leave_by_3():
    os._exit(3)
