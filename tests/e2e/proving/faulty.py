"""A Django process that does as it is told, a line at a time, and breaks what a socket cannot: names, and the clock.

``go COUNT`` serves so many requests, ``spans COUNT LARGE``, ``flush SECONDS``, ``look``, ``dns well|unknown|hangs``, ``clock SECONDS``; it ends with its input.
Each request records a span of the server's, one of the view's and a log record with the same number, and counts.
"""

import atexit
import io
import json
import logging
import os
import socket
import sys
import time

NAME = b"collector.test"
broken = {"clock": 0, "dns": "well"}
# Before anybody takes these names out of their modules.
_time, _time_ns, _getaddrinfo = time.time, time.time_ns, socket.getaddrinfo
time.time = lambda: _time() + broken["clock"]
time.time_ns = lambda: _time_ns() + broken["clock"] * 1_000_000_000


def getaddrinfo(host, *rest, **options):
    if host != NAME or options.get("flags"):
        return _getaddrinfo(host, *rest, **options)
    while broken["dns"] == "hangs":
        time.sleep(0.05)
    if broken["dns"] == "unknown":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _getaddrinfo(b"127.0.0.1", *rest, **options)


socket.getaddrinfo = getaddrinfo

from django.conf import settings  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

import chegou_otel  # noqa: E402

numbers = iter(range(1 << 60))
logger = logging.getLogger("shop")


def view(request):
    number = next(numbers)
    with tracer.start_as_current_span(f"s.{os.getpid()}.{number:08d}") as span:
        if FILLER:
            span.set_attribute("filler", FILLER)
        logger.warning("l.%s.%08d", os.getpid(), number)
        counter.add(1)
    return HttpResponse("ok")


urlpatterns = [path("", view)]
ENVIRON = {
    "REQUEST_METHOD": "GET", "PATH_INFO": "/", "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "shop", "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
}  # fmt: skip
FILLER = "x" * int(os.environ.get("FAULTY_FILLER", "0"))


def serve(count):
    """Requests through the WSGI handler; how long each took."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        response = handler(dict(ENVIRON), lambda *_: None)
        b"".join(response)
        response.close()
        times.append(time.perf_counter() - began)
    return times


def record(count, large):
    """So many spans; each hundredth with attributes of ``large`` characters, in parts that no limit of length cuts."""
    filler = "x" * (large // 4)
    for number in range(count):
        with tracer.start_as_current_span("span") as span:
            span.set_attribute("number", number)
            if number % 100 == 0:
                span.set_attributes({f"filler.{part}": filler for part in range(4)})


def ledger():
    found = telemetry.runtime.recorder.ledger()
    names = ("created", "delivered", "rejected", "ambiguous", "dropped", "held")
    return {signal: {name: getattr(account, name) for name in names} for signal, account in found.items()}


def look():
    recorder = telemetry.runtime.recorder
    return {"ledger": ledger(), "storage": [recorder.storage.kind, recorder.storage.reason], "courier": courier_seconds()}


def courier_seconds():
    """What the courier's thread has used of a processor."""
    courier = telemetry.runtime.recorder.courier
    if courier is None or not courier._running.locked():
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(courier._ident))


def tell_at_exit():
    """After our own exit: what was not moved into a segment that the next process finds."""
    with open(os.environ["FAULTY_LEDGER"], "w") as file:
        json.dump(ledger(), file)


def obey(line):
    order, _, rest = line.strip().partition(" ")
    if order == "go":
        return serve(int(rest))
    if order == "flush":
        return telemetry.flush(float(rest))
    if order == "spans":
        return record(*map(int, rest.split()))
    if order == "clock":
        broken["clock"] += int(rest)
    if order == "dns":
        broken["dns"] = rest
    return look()


def main():
    global telemetry, tracer, counter, handler
    settings.configure(
        SECRET_KEY="only-for-tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, LOGGING_CONFIG=None,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    )  # fmt: skip
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    atexit.register(tell_at_exit)  # before ours, so it runs after ours
    telemetry = chegou_otel.setup("shop")
    if compression := float(os.environ.get("FAULTY_COMPRESSION", "0")):
        compress(compression)
    if size := int(os.environ.get("FAULTY_SEGMENT", "0")):
        pool = telemetry.runtime.recorder.pool
        pool.maximum, pool.size = pool.maximum * pool.size // size, size
    from django.core.wsgi import get_wsgi_application
    from opentelemetry import metrics, trace

    handler = get_wsgi_application()
    tracer = trace.get_tracer("shop")
    counter = metrics.get_meter("shop").create_counter("shop.served")
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(line)), flush=True)


def compress(by):
    """Let the courier's time pass so many times as fast."""
    from chegou_otel.delivery import courier, lanes

    real = lanes.Circuit.failed

    def failed(self, wait):
        real(self, wait)
        self.until = time.monotonic() + (self.until - time.monotonic()) / by

    lanes.Circuit.failed = failed
    courier.SCAN_SECONDS /= by
    telemetry.runtime.recorder.collect_interval /= by


if __name__ == "__main__":
    sys.modules["faulty"] = sys.modules["__main__"]
    main()
