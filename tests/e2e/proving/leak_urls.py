"""Every place that a request has. Secrets come in by the request itself: the places are named there, and by the test."""

import asyncio
import base64
import json
import logging
import urllib.request
from contextlib import suppress

from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from opentelemetry import baggage, context, metrics, trace

log = logging.getLogger("leak")
tracer = trace.get_tracer("leak")


def wrong(message, cause):
    try:
        raise KeyError(cause)
    except KeyError as error:
        raise ValueError(message) from error


def logs(s):
    log.warning("password=%s", s("log argument"))
    log.warning('{"token": "%s", "n": 1}', s("log json"))
    log.warning("connect to postgres://app:%s@db/x", s("log url"))
    log.warning(
        "login", extra={"password": s("log extra"), "nested": {"api_key": s("log extra nested")}, "list": [{"token": s("log extra list")}]}
    )
    log.warning("user %(user)s %(password)s", {"user": "ana", "password": s("log mapping")})
    log.warning({"authorization": s("log body mapping")})
    log.warning(
        "headers %s", {"Authorization": "Basic " + base64.b64encode(s("log basic").encode()).decode(), "Cookie": s("log repr of headers")}
    )
    log.warning("Authorization: Bearer %s", s("log bearer"))
    with suppress(ValueError):
        try:
            wrong("secret=" + s("exception message"), "api_key=" + s("exception cause"))
        except ValueError:
            log.exception("failed")
            raise
    import structlog

    structlog.stdlib.get_logger("leak.struct").warning("login", password=s("structlog"))
    from loguru import logger

    logger.bind(token=s("loguru bind")).warning("password={}", s("loguru argument"))


def spans(s):
    with tracer.start_as_current_span("mine", attributes={"api_key": s("span attribute at start")}) as span:
        span.set_attribute("password", s("span attribute"))
        span.set_attribute("db.dsn", f"postgres://app:{s('span attribute url')}@db/x")
        span.set_attributes({"http.request.header.cookie": [s("span attribute list")]})
        span.add_event("login", {"token": s("event attribute")})
        span.add_event("said", {"message": f"password={s('event attribute text')}"})
        with suppress(ValueError):
            try:
                wrong(f"token={s('recorded exception')}", "no")
            except ValueError as error:
                span.record_exception(error, {"secret": s("exception event attribute")})
                raise
        span.set_status(trace.StatusCode.ERROR, f"password={s('status description')}")
    other = trace.Link(trace.SpanContext(1, 2, True), {"token": s("link attribute")})
    tracer.start_span("linked", links=[other]).end()
    metrics.get_meter("leak").create_counter("leak.calls").add(
        1, {"token": s("metric attribute"), "q": f"password={s('metric attribute text')}"}
    )


def data(s):
    connection.force_debug_cursor = True
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT '{s('sql literal')}', x'{s('sql blob').encode().hex()}', 1")
        cursor.execute("SELECT %s", [s("sql parameter")])
        cursor.execute(f"SELECT 1 -- {s('sql comment')}\n")
        with suppress(Exception):
            cursor.execute(f"SELECT nothing FROM nowhere WHERE x = '{s('failing sql literal')}'")
        with suppress(Exception):
            cursor.execute(f"SELECT '{s('broken sql')} FROM")
    connection.force_debug_cursor = False
    cache.set("user:" + s("cache key"), s("cache value"))
    cache.get_many(["a:" + s("cache keys")])
    import redis
    from django.conf import settings

    client = redis.Redis.from_url(settings.REDIS_URL)
    client.set("r:" + s("redis key"), s("redis value"))
    client.pipeline().get("r:" + s("redis pipeline key")).set("x", s("redis pipeline value")).execute()
    with suppress(redis.ResponseError):
        client.execute_command("LPUSH", "r:" + s("redis key"), s("redis failing value"))
    with suppress(redis.ResponseError):
        client.eval(f"return redis.error_reply('password={s('redis script')}')", 0)


def outbound(s, where):
    """``where`` is a third party, then a port that nobody listens on."""
    import aiohttp
    import httpx
    import requests
    import urllib3

    context.attach(baggage.set_baggage("mine", s("baggage")))
    for url, kind in ((where[0], "third party"), (where[1], "closed port")):
        scheme, _, rest = url.partition("://")

        def address(client, kind=kind, scheme=scheme, rest=rest):
            return f"{scheme}://ana:{s(f'{client} userinfo, {kind}')}@{rest}/x?token={s(f'{client} query, {kind}')}&n=1"

        def headers(client, kind=kind):
            return {"X-Api-Key": s(f"{client} header, {kind}")}

        with suppress(OSError):
            requests.get(address("requests"), headers=headers("requests"), timeout=5)
        with suppress(httpx.HTTPError):
            httpx.get(address("httpx"), headers=headers("httpx"), timeout=5)
        with suppress(urllib3.exceptions.HTTPError):
            urllib3.PoolManager().request("GET", address("urllib3"), headers=headers("urllib3"), retries=False, timeout=5)
        with suppress(OSError):
            request = urllib.request.Request(f"{url}/x?token={s(f'urllib query, {kind}')}", headers=headers("urllib"))
            urllib.request.urlopen(request, timeout=5)

        async def fetch(address=address, headers=headers):
            with suppress(aiohttp.ClientError):
                async with aiohttp.ClientSession() as session, session.get(address("aiohttp"), headers=headers("aiohttp")) as response:
                    await response.read()

        asyncio.run(fetch())


def everything(request):
    """The body says which secret is for which place."""
    told = json.loads(request.body)
    secrets = told["secrets"]

    def s(place):
        return secrets[place]

    request.session["card"] = s("session value")
    logs(s)
    spans(s)
    data(s)
    outbound(s, told["where"])
    import leak_jobs
    import redis
    import rq
    from django.conf import settings

    queue = rq.Queue(connection=redis.Redis.from_url(settings.REDIS_URL))
    queue.enqueue(
        leak_jobs.fail,
        s("job argument"),
        password=s("job keyword"),
        description=f"fail({s('job description')!r})",
        meta={"token": s("job meta")},
    )
    queue.enqueue(leak_jobs.work, s("job argument of a good job"), {"password": s("job mapping")}, result_ttl=60)
    response = HttpResponse("ok")
    response.set_cookie("sessiontoken", s("set-cookie"))
    return response


def form(request):
    raise PermissionError(f"bad login for {request.POST['user']!r}, password={request.POST['password']!r}")


def patterns(request):
    """Secrets by their shape, under innocent names."""
    for shape in json.loads(request.body):
        log.warning("customer %s came", shape)
        log.warning("customer", extra={"note": shape})
        with tracer.start_as_current_span("mine", attributes={"note": f"it is {shape}."}) as span:
            span.add_event("said", {"note": shape})
            span.set_status(trace.StatusCode.ERROR, shape)
        with suppress(ValueError):
            try:
                wrong(f"customer {shape}", shape)
            except ValueError as error:
                trace.get_current_span().record_exception(error)
                raise
    return HttpResponse("ok")


def stream(request):
    def chunks():
        yield b"x"
        raise ValueError(f"password={request.GET['token']}")

    return StreamingHttpResponse(chunks())


urlpatterns = [
    path("everything/", everything),
    path("form/", form),
    path("patterns/", patterns),
    path("stream/", stream),
    path("reset/<token>/", lambda request, token: HttpResponse("ok")),
]
