"""A measured process that serves requests: `serve.py heavy|light REQUESTS` or `serve.py paced REQUESTS INTERVAL_MS`. Prints JSON.

It calls the WSGI application as a server does: a fresh environ per request, the body iterated and closed. There is no socket, so that
what is measured is the application and its telemetry.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import usage
import variants

WARM_UP = 200
PATHS: dict[str, Callable[[int], str]] = {"heavy": lambda number: f"/orders/{number}/", "light": lambda _number: "/ping/"}


class Caller:
    """What a WSGI server does for one request."""

    def __init__(self, application: Callable[..., Any], path: Callable[[int], str]) -> None:
        self.application = application
        self.path = path
        self.status = ""

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """PEP 3333's callable."""
        self.status = status
        return lambda _body: None

    def __call__(self, number: int) -> None:
        """One request from environ to close."""
        body = self.application(self.environ(number), self.start_response)
        try:
            size = sum(len(chunk) for chunk in body)
        finally:
            body.close()
        if self.status != "200 OK" or not size:
            raise SystemExit(f"{self.path(number)} answered {self.status}")

    def environ(self, number: int) -> dict[str, Any]:
        """What a server puts into it."""
        return {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": self.path(number), "QUERY_STRING": "", "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "50000",
            "HTTP_HOST": "shop.example:8000", "HTTP_USER_AGENT": "benchmark/1.0", "HTTP_ACCEPT": "*/*", "HTTP_ACCEPT_ENCODING": "gzip",
            "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
            "wsgi.multithread": True, "wsgi.multiprocess": True, "wsgi.run_once": False,
        }  # fmt: skip


def measure(call: Caller, requests: int) -> dict[str, Any]:
    """CPU of a fixed number of requests, one after the other, with what it takes to send their telemetry."""
    cpu, thread = usage.cpu(), time.thread_time()
    for number in range(requests):
        call(number)
    in_thread = time.thread_time() - thread
    variants.flush()
    total = usage.cpu() - cpu
    return {"cpu_us": total / requests * 1e6, "thread_us": in_thread / requests * 1e6}


def paced(call: Caller, requests: int, interval: float) -> dict[str, Any]:
    """Milliseconds from the moment a request was due to its end. A late start counts, as it does for who waits."""
    waits = []
    start = time.perf_counter() + interval
    for number in range(requests):
        due = start + number * interval
        while (ahead := due - time.perf_counter()) > 0:
            time.sleep(ahead)
        call(number)
        waits.append((time.perf_counter() - due) * 1000)
    variants.flush()
    return {"latencies_ms": waits}


def main(load: str, requests: int, interval_ms: float = 0.0) -> None:
    """Warm up, flush, measure, tell."""
    variants.start()
    started = usage.memory()
    from django.core.handlers.wsgi import WSGIHandler

    application = WSGIHandler()
    startup = usage.cpu()
    call = Caller(application, PATHS["light" if load == "light" else "heavy"])
    for number in range(WARM_UP):
        call(number)
    variants.flush()
    result = paced(call, requests, interval_ms / 1000) if load == "paced" else measure(call, requests)
    variants.check()
    told = {
        "served": requests + WARM_UP,
        "times": variants.times,
        "startup": startup,
        "started": started,
        "ended": usage.memory(),
        **result,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:]))
