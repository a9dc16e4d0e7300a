"""A measured process whose receiver fails: `faulty.py serve` says how long each request took, `faulty.py idle` what its courier costs
while there is next to nothing to do, `faulty.py backlog` what it has resident while more is recorded than its spool takes.

Nothing is flushed before the end: with a receiver that fails there is no other end than the exit's deadline.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import variants

WARM_UP = 200
LARGE = 25_000  # four attributes of this size are 100 kB
LARGE_EVERY = 1000


def serve() -> tuple[Callable[[int], None], Callable[[], dict[str, Any]]]:
    """Heavy requests."""
    from django.core.handlers.wsgi import WSGIHandler
    from serve import PATHS, Caller

    call, times = Caller(WSGIHandler(), PATHS["heavy"]), []

    def go(count: int) -> None:
        for number in range(count):
            began = time.perf_counter()
            call(number)
            times.append(time.perf_counter() - began)

    go(WARM_UP)
    times.clear()
    return go, lambda: {"times": times}


def idle() -> tuple[Callable[[int], None], Callable[[], dict[str, Any]]]:
    """A span each second."""
    used: list[float] = []

    def go(seconds: int) -> None:
        before = courier_seconds()
        for _ in range(seconds):
            record(1, large=False)
            time.sleep(1)
        used.append(courier_seconds() - before)

    record(1, large=False)
    time.sleep(5)  # the first tries are over
    return go, lambda: {"courier": sum(used)}


def backlog() -> tuple[Callable[[int], None], Callable[[], dict[str, Any]]]:
    """Spans, with large ones among them."""
    record(20_000, large=True)
    before = resident()
    peak = dict(before)

    def watch() -> None:
        while True:
            peak.update({name: max(peak[name], size) for name, size in resident().items()})
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    return lambda count: record(count, large=True), lambda: {"before": before, "peak": peak, "ledger": ledger()}


def record(count: int, *, large: bool) -> None:
    """So many spans of the application's."""
    from opentelemetry import trace

    tracer, filler = trace.get_tracer("faulty"), "x" * LARGE
    for number in range(count):
        with tracer.start_as_current_span("span") as span:
            span.set_attribute("number", number)
            if large and number % LARGE_EVERY == 0:
                span.set_attributes({f"filler.{part}": filler for part in range(4)})


def courier_seconds() -> float:
    """What the courier's thread has used of a processor."""
    import chegou_otel

    courier = chegou_otel.setup().runtime.recorder.courier
    return time.clock_gettime(time.pthread_getcpuclockid(courier._ident)) if courier is not None else 0.0


def ledger() -> dict[str, Any]:
    """What became of the spans."""
    import chegou_otel

    account = chegou_otel.setup().runtime.recorder.ledger()["traces"]
    return {"created": account.created, "delivered": account.delivered, "dropped": account.dropped, "held": account.held}


def resident() -> dict[str, int]:
    """KiB, by what they belong to."""
    with open("/proc/self/status", encoding="ascii") as file:
        found = dict(line.split(":", 1) for line in file if line.startswith(("Rss", "VmRSS")))
    return {name: int(text.split()[0]) for name, text in found.items()}


def main(mode: str) -> None:
    """Obey `go COUNT` lines; on `end`, tell."""
    variants.start()
    go, tell = {"serve": serve, "idle": idle, "backlog": backlog}[mode]()
    say("ready")
    for line in sys.stdin:
        order, _, number = line.partition(" ")
        if order.strip() == "end":
            break
        go(int(number))
        say("done")
    variants.check()
    say(tell())


def say(answer: object) -> None:
    """A line of JSON."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
