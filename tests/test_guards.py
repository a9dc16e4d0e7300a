"""Our failure never becomes the application's: each hook fails in turn, at its start and at its end, and nobody notices.

The hooks are found, not listed: every function under the guard, and every method of what the hooks are made of. What the application
sees (answers, job results, rows, replies, log lines) has to equal what it sees without us; our own response header may be absent.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import importlib
import inspect
import io
import logging
import pkgutil
import sqlite3
import sys
import threading
import types
import urllib.request
from pathlib import Path

import pytest

import chegou_otel
from chegou_otel import _guard
from chegou_otel.testing import capture
from tests.delivery.receiver import raw_server

pytestmark = [pytest.mark.lenient, pytest.mark.slow, pytest.mark.long, pytest.mark.filterwarnings("ignore")]

PROJECT = Path(__file__).parent / "integrations" / "django" / "project"
NOT_IN_APPLICATIONS = ("chegou_otel.local", "chegou_otel.cli", "chegou_otel.testing", "chegou_otel.app", "chegou_otel.__main__")
RUN = _guard.guarded(lambda: None).__code__
#: What hooks are made of. Where these fail, whoever calls them has to be under a guard.
PARTS = [
    ("chegou_otel.signals.encoding", "Encoder", ("clean", "attributes")),
    ("chegou_otel.signals.tracing", "Tracer", ("begin", "leaf")),
    ("chegou_otel.signals.spans", "Span", ("set_static", "fail", "_finish", "encode")),
    ("chegou_otel.signals.metrics", "Registry", None),
    ("chegou_otel.signals.logs", "LogBridge", None),
    ("chegou_otel.redaction", "Redactor", None),
    ("chegou_otel.propagation", "Propagation", None),
    ("chegou_otel.delivery.recorder", "Recorder", ("reserve", "become", "drain", "_slow", "_place")),
    ("chegou_otel.integrations.rq.executions", "Executions", ("begin", "finish", "count", "static", "told_static")),
    ("chegou_otel.integrations.rq.enqueue", "Producer", None),
    ("chegou_otel.integrations.rq.teller", "Teller", None),
    ("chegou_otel.integrations.rq.listener", "Listener", None),
    ("chegou_otel.integrations.rq.never_ran", "NeverRan", ("tell",)),
    ("chegou_otel.integrations.rq.abandoned", "Abandoned", ("_look", "tell")),
    ("chegou_otel.integrations.rq.claims", "Claims", ("take", "ending", "know")),
    ("chegou_otel.integrations.redis", "Commands", ("done", "_new")),
    ("chegou_otel.integrations.django.server", "Server", None),
    ("chegou_otel.integrations.django.exchange", "Exchange", ("_describe", "_finish", "_respond", "_fail")),
]


class Forced(Exception):
    """Our failure."""


def modules():
    found = pkgutil.walk_packages(chegou_otel.__path__, "chegou_otel.")
    names = [module.name for module in found if not module.name.startswith(NOT_IN_APPLICATIONS)]
    return [importlib.import_module(name) for name in names]


def hooks():
    """Every function under the guard, by name."""
    modules()
    found = {
        f"{f.__module__}.{f.__qualname__}" for f in guards() if f.__module__.startswith("chegou_otel.") and "<locals>" not in f.__qualname__
    }
    return sorted(found)


def guards():
    return [each for each in gc.get_objects() if type(each) is types.FunctionType and each.__code__ is RUN]


def parts():
    for module, name, methods in PARTS:
        owner = getattr(importlib.import_module(module), name)
        for method in methods or [key for key, value in vars(owner).items() if inspect.isfunction(value) and not key.startswith("__")]:
            if method in vars(owner) and getattr(vars(owner)[method], "__code__", None) is not RUN:  # those are hooks themselves
                yield pytest.param(owner, method, id=f"{name}.{method}")


@contextlib.contextmanager
def failing_hook(name, when):
    cells = [
        dict(zip(RUN.co_freevars, f.__closure__, strict=True))["function"] for f in guards() if f"{f.__module__}.{f.__qualname__}" == name
    ]
    before = [cell.cell_contents for cell in cells]

    def forced(original):
        def fail(*args, **kwargs):
            if when == "at its end":
                original(*args, **kwargs)
            raise Forced(name)

        fail.__module__, fail.__qualname__ = original.__module__, original.__qualname__
        return fail

    for cell, original in zip(cells, before, strict=True):
        cell.cell_contents = forced(original)
    try:
        yield
    finally:
        for cell, original in zip(cells, before, strict=True):
            cell.cell_contents = original


# -- the application ---------------------------------------------------------------------------------------------------

PATHS = [
    "/ok/",
    "/aok/",
    "/missing/",
    "/none/",
    "/forbidden/",
    "/fail/",
    "/afail/",
    "/fail/returned/",
    "/stream/",
    "/astream/",
    "/cookie/",
    "/file/",
    "/users/7/?token=x",
]


def answer(served, path):
    found = served.call(
        path, headers={"User-Agent": "test", "X-Correlation-ID": "order-0001", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    )
    headers = sorted((k, v) for k, v in found.headers.items() if k.lower() not in ("x-correlation-id", "date"))
    return found.status, headers, found.body


def third_party(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")


def outbound(url):
    import aiohttp
    import httpx
    import requests
    import urllib3

    async def both():
        async with httpx.AsyncClient() as client, aiohttp.ClientSession() as session, session.get(url) as response:
            return (await client.get(url)).text, await response.text()

    told = [
        requests.get(url, timeout=5).text,
        httpx.get(url).text,
        urllib3.PoolManager().request("GET", url).data,
        urllib.request.urlopen(url).read(),
    ]
    for wrong in (lambda: requests.get("http://127.0.0.1:1/", timeout=5), lambda: urllib.request.urlopen("http://127.0.0.1:1/")):
        try:
            wrong()
        except OSError as error:
            told.append(type(error))
    return told, asyncio.run(both())


def sql():
    connection = sqlite3.connect(":memory:")
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE x (n)")
    cursor.executemany("INSERT INTO x VALUES (?)", [(1,), (2,)])
    rows = cursor.execute("SELECT n FROM x WHERE n > ?", (1,)).fetchall()
    try:
        cursor.execute("SELECT nothing")
    except sqlite3.OperationalError as error:
        return rows, str(error)


def replies(client):
    import redis

    told = [client.set("k", "v"), client.get("k"), client.pipeline().get("k").incr("n").execute(), client.delete("n")]
    try:
        client.lpush("k", 1)
    except redis.ResponseError as error:
        told.append(str(error))

    async def also(port):
        async with redis.asyncio.Redis(port=port) as other:
            return await other.get("k")

    return [*told, asyncio.run(also(client.connection_pool.connection_kwargs["port"]))]


def lines():
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logger = logging.getLogger("guards")
    logger.addHandler(handler)
    try:
        logger.warning("n is %d", 7, extra={"order": {"n": 1}})
        logger.warning("%(password)s", {"password": "x"})
        try:
            raise ValueError("wrong")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    return [line for line in said.getvalue().splitlines() if "File" not in line and "test_guards" not in line]


def cached():
    from django.core.cache import cache

    cache.set("guards", 1)
    return cache.get("guards"), cache.get_many(["guards", "none"]), cache.delete("guards")


def threaded():
    told = []
    thread = threading.Thread(target=told.append, args=(chegou_otel.__name__,))
    thread.start()
    thread.join()
    return told


def jobs(client, worker):
    import rq

    queue = rq.Queue(connection=client)
    made = [
        queue.enqueue("operator.add", 1, 2),
        queue.enqueue("operator.truediv", 1, 0),
        queue.enqueue("operator.truediv", 1, 0, retry=rq.Retry(max=1)),
    ]
    many = queue.enqueue_many([rq.Queue.prepare_data("operator.add", (3, 4))])
    logging.getLogger("rq").setLevel(logging.CRITICAL)
    done = getattr(rq, worker)([queue], connection=client).work(burst=True)
    told = []
    for job in [*made, *many]:
        job.refresh()
        found = job.latest_result()
        told.append((str(job.get_status()), found.return_value, (found.exc_string or "").splitlines()[-1:]))
    return done, told


@pytest.fixture(scope="module")
def application(redis_port):
    """A function that does all there is to do and tells what it saw."""
    sys.path.insert(0, str(PROJECT))
    import django
    import redis
    import served_settings
    from django.conf import settings
    from django.test import override_settings

    own = {name: getattr(served_settings, name) for name in dir(served_settings) if name.isupper()}
    if not settings.configured:
        settings.configure(**own)
        django.setup()
    client = redis.Redis(port=redis_port)
    import served_views
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from serving import Served, serving_asgi, serving_wsgi

    with override_settings(**own), contextlib.ExitStack() as stack:
        served_views.gate.set()
        servers = [
            Served(stack.enter_context(serving_wsgi(get_wsgi_application())), "wsgi"),
            Served(stack.enter_context(serving_asgi(get_asgi_application())), "asgi"),
        ]
        url = stack.enter_context(raw_server(third_party))

        def play(worker):
            client.flushall()
            return {
                "requests": [answer(served, path) for served in servers for path in PATHS],
                "outbound": outbound(url),
                "sql": sql(),
                "redis": replies(client),
                "logs": lines(),
                "cache": cached(),
                "threads": threaded(),
                "jobs": jobs(client, worker),
            }

        bare = {worker: play(worker) for worker in ("SimpleWorker", "Worker")}
        yield lambda worker: (play(worker), bare[worker])
        served_views.gate.clear()
    client.close()


def seen(application, worker):
    # In a context of its own: where the very hook fails that puts the context back, it stays.
    told, bare = contextvars.copy_context().run(application, worker)
    for what, value in bare.items():
        assert told[what] == value, what


def worker_for(name):
    """A fork costs: only what has to do with RQ runs in one."""
    return "Worker" if "rq" in name or "Recorder" in name else "SimpleWorker"


def test_the_application_is_the_same_with_us(application):
    with capture() as recorded:
        seen(application, "Worker")
    assert len(recorded.spans) > 50


@pytest.mark.parametrize("when", ["at its start", "at its end"])
@pytest.mark.parametrize("name", hooks())
def test_a_failing_hook_changes_nothing(application, name, when):
    with capture(), failing_hook(name, when):
        seen(application, worker_for(name))


@pytest.mark.parametrize(("owner", "method"), list(parts()))
def test_a_failing_part_changes_nothing(application, owner, method, monkeypatch):
    def fail(*_args, **_kwargs):
        raise Forced(method)

    with capture():
        monkeypatch.setattr(owner, method, fail)
        try:
            seen(application, worker_for(owner.__module__ + owner.__name__))
        finally:
            monkeypatch.undo()


class Unspeakable:
    def __str__(self):
        raise RuntimeError("no name for this")


@pytest.mark.parametrize(
    "wrong", [{"name": Unspeakable()}, {"name": "x", "links": [None]}, {"name": "x", "kind": None}], ids=["name", "links", "kind"]
)
def test_a_span_begun_with_something_wrong_goes_without_it(wrong):
    from opentelemetry import trace

    with capture() as recorded:
        tracer = trace.get_tracer("guards")
        with tracer.start_as_current_span("outer"), tracer.start_as_current_span(**wrong) as span:
            assert span.is_recording()
        assert len(recorded.span_names()) == 2


def test_a_span_that_cannot_be_begun_is_none_and_the_work_goes_on(monkeypatch):
    from opentelemetry import trace

    from chegou_otel.signals.tracing import Tracer

    def fail(*_args, **_kwargs):
        raise Forced("begin")

    with capture() as recorded:
        tracer = trace.get_tracer("guards")
        with tracer.start_as_current_span("outer"):
            monkeypatch.setattr(Tracer, "begin", fail)
            with tracer.start_as_current_span("never") as span:
                assert not span.is_recording()
            monkeypatch.undo()
        assert recorded.span_names() == ["outer"]
