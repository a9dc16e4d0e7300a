import asyncio
import logging
import threading

import records
from asgiref.sync import sync_to_async
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path


def buy(request):
    """SQL, spans and logs, each noted once it was recorded."""
    from django.db import connection

    for _ in range(10):
        records.log()
        records.span(lambda: connection.cursor().execute("SELECT 1"))
    return HttpResponse("bought")


def fail(request):
    logging.getLogger("shop").error("it is about to fail")
    raise ValueError("no luck")


def enqueue(request):
    import redis
    import rq
    from django.conf import settings

    queue = rq.Queue(connection=redis.Redis.from_url(settings.REDIS_URL), is_async="now" not in request.GET)
    job = queue.enqueue("records.tell", request.GET["what"])
    return HttpResponse(job.id)


def stream(request):
    return StreamingHttpResponse(iter([b"a", b"b"]))


def seen():
    import chegou_otel

    return chegou_otel.get_correlation_id()


def threads(request):
    told = []
    thread = threading.Thread(target=lambda: told.append(seen()))
    thread.start()
    thread.join()
    return JsonResponse({"here": seen(), "thread": told[0]})


async def tasks(request):
    there = await asyncio.gather(sync_to_async(seen)(), asyncio.to_thread(seen))
    return JsonResponse({"here": seen(), "sync": there[0], "thread": there[1]})


urlpatterns = [
    path("buy/", buy),
    path("fail/", fail),
    path("enqueue/", enqueue),
    path("stream/", stream),
    path("threads/", threads),
    path("tasks/", tasks),
]
