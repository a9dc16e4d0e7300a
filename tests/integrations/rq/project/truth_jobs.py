"""Jobs whose ends are told by others, or whose use of the machine is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time


def waits(path, seconds=60.0):
    """Says that it runs, and goes on until ``path`` + ``.go`` exists."""
    from opentelemetry import trace

    span = trace.get_current_span()
    span.set_attribute("truth.before", "the end")
    span.add_event("last words")
    waits_quietly(path, seconds)


def waits_quietly(path, seconds=60.0):
    """The same, and records nothing."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    deadline = time.monotonic() + seconds
    while not os.path.exists(f"{path}.go") and time.monotonic() < deadline:
        time.sleep(0.01)


def tells_much(path):
    """More than a segment takes, then waits, and ends in order."""
    from opentelemetry import trace

    tracer = trace.get_tracer("truth")
    for number in range(60):
        with tracer.start_as_current_span("chunk") as span:
            for key in range(10):
                span.set_attribute(f"truth.{number}.{key}", "x" * 8_000)
    waits(path)


def ok():
    return "ok"


def fails():
    raise ValueError("no luck")


#: Where two jobs in two threads of one process meet.
beside = {what: threading.Event() for what in ("fails", "goes on", "failed")}


def fails_beside():
    beside["fails"].set()
    beside["goes on"].wait(30)
    raise ValueError("no luck")


def goes_on_beside():
    beside["goes on"].set()
    beside["failed"].wait(30)


def leaves(code):
    os._exit(code)


def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def allocates(mebibytes, then=""):
    held = [b"x" * (1 << 20) for _ in range(mebibytes)]
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "fail":
        raise ValueError("no luck")
    return len(held)


def burns(seconds, in_child=False, then=""):
    if in_child:
        subprocess.run([sys.executable, "-c", f"import truth_jobs; truth_jobs.burns({seconds})"], check=True)
    else:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
