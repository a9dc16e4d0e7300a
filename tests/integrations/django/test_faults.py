"""Our failure never becomes the application's: an exception at every line of every hook, and the answer is the same.

A trace function counts the lines of our hooks that run while a request is served, then raises at the first of them, at the
second, and so on. Status, headers (but ours) and body have to equal those of the application without us.
"""

import asyncio
import contextvars
import gc
import linecache
import re
import sys
from pathlib import Path

import pytest

import chegou_otel
from chegou_otel import _guard, get_correlation_id
from chegou_otel.integrations.django.exchange import current
from chegou_otel.testing import capture

PACKAGE = str(Path(chegou_otel.__file__).parent)
GUARD = _guard.__file__

# The line of a ``with`` comes by again before its block is left: raising there would keep a lock for ever, which nothing real does.
CANNOT_FAIL = ("with ", "try:")
# Where the context is put back nobody is left to put it back; and a generator that our stream could not put into its context
# brings back, by its own clean-up, the one that it was in before.
PUTS_BACK = re.compile(r"token|opened|detach\(\)|_ended|correlation\.py|streams\.py.*(attach|closes)").search

pytestmark = pytest.mark.lenient


class Injected(Exception):
    """Our failure."""


class Fault:
    """Raises at the n-th line of our hooks; ``None`` only counts."""

    def __init__(self, target=None):
        self.target = target
        self.count = 0
        self.where = None

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.call)
        return self

    def __exit__(self, *_):
        sys.settrace(self.before)

    def call(self, frame, event, arg):
        name = frame.f_code.co_filename
        return self.line if name.startswith(PACKAGE) and name != GUARD and frame.f_code.co_name != "__del__" and is_hook(frame) else None

    def line(self, frame, event, arg):
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and not source.startswith(CANNOT_FAIL):
            self.count += 1
            if self.count == self.target:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}: {source}"
                raise Injected(self.where)
        return self.line


#: What stands around the application's code, outside of every guard: nothing there but calls of hooks.
AROUND = {"call", "send_response", "get_response", "get_response_async", "process_exception_by_middleware", "load_middleware"}
AROUND |= {"resolve_request", "close", "unhandled", "__next__", "__anext__", "__iter__", "__aiter__"}


def is_hook(frame):
    """All of our Django code but what is around the application, guarded or not; and whatever it calls under a guard."""
    code = frame.f_code
    if "integrations/django" in code.co_filename:
        return code.co_name not in AROUND
    return guarded(frame)


def guarded(frame):
    while frame is not None:
        if frame.f_code.co_filename == GUARD and frame.f_code.co_name == "run":
            return True
        frame = frame.f_back
    return False


ENVIRON = {"HTTP_X_CORRELATION_ID": "pedido-0000001", "HTTP_TRACEPARENT": f"00-{'1' * 32}-{'2' * 16}-01", "HTTP_USER_AGENT": "x"}
SETTINGS = {"trust_from": ("127.0.0.1",), "capture_response_headers": ("content-type",), "client_address": True, "user": "id"}


def wsgi(application, path, **more):
    """Call the application as a server does, and close what it returned."""
    from django.test import RequestFactory

    told = {}

    def start_response(status, headers, exc_info=None):
        told["status"], told["headers"] = status, headers

    environ = RequestFactory().get(path, **ENVIRON, **more).environ
    try:
        result = application(environ, start_response)
        try:
            told["body"] = b"".join(result)
        finally:
            result.close()
    except Exception as error:
        told["error"] = repr(error)
    return clean(told)


def asgi(application, path, **more):
    told = {"body": b"", "headers": []}
    headers = [(name[5:].replace("_", "-").lower().encode(), value.encode()) for name, value in {**ENVIRON, **more}.items()]
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"a=1", "headers": [*headers, (b"host", b"testserver")],
        "client": ("127.0.0.1", 1), "server": ("testserver", 80), "http_version": "1.1",
    }  # fmt: skip

    async def serve():
        requests = [{"type": "http.request", "body": b""}]

        async def receive():
            if requests:
                return requests.pop()
            await asyncio.sleep(60)
            raise AssertionError("nobody disconnects")

        async def send(message):
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                told["headers"] = [(name.decode(), value.decode()) for name, value in message["headers"]]
            else:
                told["body"] += message.get("body", b"")

        await application(scope, receive, send)

    try:
        asyncio.run(serve())
    except Exception as error:
        told["error"] = repr(error)
    return clean(told)


def clean(told):
    told["headers"] = sorted((name, value) for name, value in told.get("headers", ()) if name != "X-Correlation-ID")
    return told


CASES = [
    ("wsgi", "/users/7/", {}),
    ("wsgi", "/reset/abc/secret/", {}),
    ("wsgi", "/fail/", {}),
    ("wsgi", "/fail/", {"HTTP_X_WISH": "answer"}),
    ("wsgi", "/missing/", {}),
    ("wsgi", "/assigned/", {}),
    ("wsgi", "/stream/", {}),
    ("wsgi", "/stream/?fail=1", {}),
    ("wsgi", "/file/", {}),
    ("wsgi", "/shared/", {}),
    ("asgi", "/aok/", {}),
    ("asgi", "/afail/", {}),
    ("asgi", "/astream/", {}),
]


def one(fault, call, application, path, more, bare):
    """One request with one failure; says where it happened when something of the request was left in the thread."""
    gc.disable()  # what it would free now was made by another failure
    try:
        with fault:
            answer = call(application, path, **more)
    finally:
        gc.enable()
    assert answer == bare, fault.where
    return fault.where if get_correlation_id() is not None or current.get() is not None else None


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "path", "more"), CASES)
def test_the_answer_is_the_same(kind, path, more, step, caplog):
    """At whichever line we fail."""
    import served_views
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    served_views.gate.set()
    application, call = (get_wsgi_application(), wsgi) if kind == "wsgi" else (get_asgi_application(), asgi)
    bare = call(application, path, **more)
    with capture(**SETTINGS) as recorded:
        call(application, path, **more)  # caches are filled
        with Fault() as fault:
            assert call(application, path, **more) == bare
        assert fault.count > 100
        left = [contextvars.copy_context().run(one, Fault(n), call, application, path, more, bare) for n in range(1, fault.count + 1, step)]
        assert [where for where in left if where and not PUTS_BACK(where)] == []

        caplog.clear()  # records of failures hold frames, and these the exchanges that a failure left unfinished
        gc.collect()
        recorded.clear()
        assert call(application, path, **more) == bare
        (span,) = [span for span in recorded.spans if span.kind == "SERVER"]
        assert span.correlation_id == "pedido-0000001"
        (gauge,) = [p.value for p in recorded.metrics["http.server.active_requests"].points]
        # A failure inside the counting itself may lose one count; hundreds of others lose none.
        assert abs(gauge) < 10


def test_the_injection_works():
    """It fails what it means to fail: the guard counts it."""
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()
    before = sum(_guard.failures.values())
    with capture(), Fault(5) as fault:
        wsgi(application, "/users/7/")

    assert fault.where
    assert sum(_guard.failures.values()) == before + 1
