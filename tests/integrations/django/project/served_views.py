"""One view for every case."""

import asyncio
import logging
import threading
import time

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.http import (
    FileResponse,
    Http404,
    HttpResponse,
    HttpResponseForbidden,
    HttpResponseNotFound,
    JsonResponse,
    StreamingHttpResponse,
)
from django.views import View
from opentelemetry import trace

from chegou_otel import get_correlation_id

tracer = trace.get_tracer("served")
log = logging.getLogger("served")

#: Set and awaited by tests: streams wait here, so that a test sees them half-way.
gate = threading.Event()
seen = []


def ok(request, **kwargs):
    return HttpResponse("ok")


async def aok(request, **kwargs):
    return HttpResponse("ok")


def story(request):
    """What the view sees, and what threads and tasks see that it starts."""
    with tracer.start_as_current_span("work"):
        log.warning("working")
    return JsonResponse({"correlation_id": get_correlation_id()})


async def astory(request):
    with tracer.start_as_current_span("work"):
        log.warning("working")
        in_thread = await sync_to_async(get_correlation_id)()
        in_task = await asyncio.create_task(_seen())
        in_executor = await asyncio.to_thread(get_correlation_id)
    return JsonResponse({"correlation_id": get_correlation_id(), "thread": in_thread, "task": in_task, "executor": in_executor})


async def _seen():
    await asyncio.sleep(0)
    return get_correlation_id()


class Orders(View):
    def get(self, request, **kwargs):
        return HttpResponse("orders")

    def post(self, request, **kwargs):
        return HttpResponse(str(sum(len(f.read()) for f in request.FILES.values()) or len(request.body)))


class Called:
    """A view that is neither function nor class-based."""

    def __call__(self, request):
        return HttpResponse("called")

    __hash__ = None


def missing(request):
    raise Http404("no such thing")


def missing_returned(request):
    return HttpResponseNotFound("no")


def forbidden(request):
    raise PermissionDenied("not you")


def forbidden_returned(request):
    return HttpResponseForbidden("no")


class Broken(Exception):
    pass


def fail(request):
    raise Broken("it broke: password=hunter2")


async def afail(request):
    raise Broken("it broke: password=hunter2")


def fail_returned(request):
    return HttpResponse("oh", status=503)


def leave(request):
    raise SystemExit("leaving")


def whoami(request):
    return HttpResponse(str(request.user.pk))


async def awhoami(request):
    user = await request.auser()
    return HttpResponse(str(user.pk))


def assigned(request):
    from django.contrib.auth.models import User

    request.user = User(pk=9)
    return HttpResponse("ok")


def cookie(request):
    response = HttpResponse("ok")
    response.set_cookie("sessionid", "hunter2")
    response["X-Answer"] = "42"
    return response


def own_header(request):
    response = HttpResponse("ok")
    response["X-Correlation-ID"] = "the-applications-own"
    return response


SHARED = HttpResponse("shared")


def shared(request):
    return SHARED


def stream(request):
    """Three chunks and a span around each; between the first and the second it waits for the gate."""
    return StreamingHttpResponse(_chunks(request.GET.get("fail")))


def _chunks(fail):
    with tracer.start_as_current_span("outer"):
        yield b"one"
        with tracer.start_as_current_span("inner"):
            log.warning("streaming")
            seen.append(get_correlation_id())
        gate.wait(10)
        if fail:
            raise Broken("the stream broke")
        yield b"two"
    yield b"three"


def astream(request):
    return StreamingHttpResponse(_achunks(request.GET.get("fail")))


async def _achunks(fail):
    with tracer.start_as_current_span("outer"):
        yield b"one"
        with tracer.start_as_current_span("inner"):
            log.warning("streaming")
            seen.append(get_correlation_id())
        deadline = time.monotonic() + 10
        while not gate.is_set() and time.monotonic() < deadline:  # noqa: ASYNC110 - a test's thread opens it
            await asyncio.sleep(0.01)
        if fail:
            raise Broken("the stream broke")
        yield b"two"
    yield b"three"


def endless(request):
    def chunks():
        for _ in range(20_000):
            yield b"x" * 65_536

    return StreamingHttpResponse(chunks())


async def aendless(request):
    async def chunks():
        for _ in range(20_000):
            yield b"x" * 1024
            await asyncio.sleep(0.005)

    return StreamingHttpResponse(chunks())


async def aslow(request):
    await asyncio.sleep(20)
    return HttpResponse("late")


def file(request):
    return FileResponse(open(__file__, "rb"))


def nested(request):
    """Somebody calls the application from within."""
    from django.test import Client

    inner = Client().get("/ok/")
    return HttpResponse(f"{inner.headers.get('X-Correlation-ID')} {get_correlation_id()}")
