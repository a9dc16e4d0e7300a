"""A measured process that serves requests: `serve.py heavy`, `serve.py light` or `serve.py paced INTERVAL_MS`, as it is ordered to.

It calls the WSGI application as a server does: a fresh environ per request, the body iterated and closed. There is no socket, so that
what is measured is the application and its telemetry.
"""

import io
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import orders
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


def paced(call: Caller, numbers: Iterable[int], interval: float) -> list[float]:
    """Milliseconds from the moment a request was due to its end. A late start counts, as it does for who waits."""
    waits = []
    due = time.perf_counter()
    for number in numbers:
        due += interval
        while (ahead := due - time.perf_counter()) > 0:
            time.sleep(ahead)
        call(number)
        waits.append((time.perf_counter() - due) * 1000)
    return waits


def main(load: str, interval_ms: float = 0.0) -> None:
    """Warm up, measure a fixed number of requests with what it takes to send their telemetry, tell."""
    variants.start()
    started = usage.memory()
    from django.core.handlers.wsgi import WSGIHandler

    application = WSGIHandler()
    startup = usage.cpu()
    call = Caller(application, PATHS["light" if load == "light" else "heavy"])
    for number in range(WARM_UP):
        call(number)
    variants.flush()
    waits: list[float] = []

    def serve(numbers: Iterable[int]) -> None:
        if load == "paced":
            waits.extend(paced(call, numbers, interval_ms / 1000))
        else:
            for number in numbers:
                call(number)

    result = orders.obey(serve)
    told = {"served": result["count"] + WARM_UP, "times": variants.times, "startup": startup, "started": started, "latencies_ms": waits}
    orders.say({**told, **result})


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
