"""Outbound HTTP by every client: one span per request that goes out, headers for allowed hosts only, the call itself unchanged."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request

import aiohttp
import httpx
import pytest
import requests
import urllib3

import chegou_otel
from chegou_otel.testing import capture
from tests.integrations.http_servers import Origin


def by_requests(method, url):
    return requests.request(method, url, timeout=5).status_code


def by_urllib3(method, url):
    with urllib3.PoolManager() as pool:
        return pool.request(method, url, timeout=5, retries=urllib3.Retry(connect=0, redirect=5)).status


def by_httpx(method, url):
    with httpx.Client(follow_redirects=True, timeout=5) as client:
        return client.request(method, url).status_code


def by_httpx_async(method, url):
    async def call():
        async with httpx.AsyncClient(follow_redirects=True, timeout=5) as client:
            return (await client.request(method, url)).status_code

    return asyncio.run(call())


def by_urllib(method, url):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def by_aiohttp(method, url):
    async def call():
        async with aiohttp.ClientSession() as session, session.request(method, url, timeout=aiohttp.ClientTimeout(5)) as response:
            return response.status

    return asyncio.run(call())


CLIENTS = [by_requests, by_urllib3, by_httpx, by_httpx_async, by_urllib, by_aiohttp]
every_client = pytest.mark.parametrize("call", CLIENTS, ids=[client.__name__[3:] for client in CLIENTS])


@pytest.fixture
def origin():
    made = Origin()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    """``far.example`` and ``near.example`` lead to this machine, so that a foreign name can be called for real."""
    real = socket.getaddrinfo

    def resolve(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if str(name).endswith(".example") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@every_client
def test_one_span_per_request_with_the_standard_names(telemetry, origin, call):
    with chegou_otel.use_correlation_id("call-0001"):
        assert call("GET", origin.url("/ok")) == 200

    span = telemetry.span("GET")
    assert (span.kind, span.status, span.correlation_id) == ("CLIENT", "UNSET", "call-0001")
    told = span.attributes
    assert (told["http.request.method"], told["server.address"], told["server.port"]) == ("GET", "127.0.0.1", origin.port)
    assert (told["url.full"], told["http.response.status_code"]) == (origin.url("/ok"), 200)
    (point,) = telemetry.metrics["http.client.request.duration"].points
    assert (point.count, point.attributes["http.response.status_code"]) == (1, 200)


@every_client
def test_loopback_receives_the_trace_and_the_correlation_id(telemetry, origin, call):
    with chegou_otel.use_correlation_id("call-0002"):
        call("GET", origin.url("/ok"))

    span = telemetry.span("GET")
    assert origin.headers()["traceparent"] == f"00-{span.trace_id}-{span.span_id}-03"
    assert origin.headers()["x-correlation-id"] == "call-0002"


@every_client
def test_a_third_party_receives_nothing_and_its_span_is_there(telemetry, origin, call):
    with chegou_otel.use_correlation_id("call-0003"):
        assert call("GET", origin.url("/ok", "far.example")) == 200

    assert {"traceparent", "x-correlation-id", "baggage"}.isdisjoint(origin.headers())
    assert telemetry.span("GET").attributes["server.address"] == "far.example"


@every_client
def test_a_redirect_to_another_host_is_checked_again(origin, call):
    with capture(propagate_to=["near.example"]) as telemetry, chegou_otel.use_correlation_id("call-0004"):
        assert call("GET", origin.url("/to/" + origin.url("/ok", "far.example"), "near.example")) == 200

    first, second = (headers for _, headers in origin.seen)
    assert "traceparent" in first
    assert {"traceparent", "x-correlation-id"}.isdisjoint(second)
    assert [span.attributes["server.address"] for span in telemetry.spans] == ["near.example", "far.example"]


@every_client
@pytest.mark.parametrize("status", [404, 503])
def test_an_error_status_is_an_error_of_the_call(telemetry, origin, call, status):
    assert call("POST", origin.url(f"/status/{status}")) == status

    span = telemetry.span("POST")
    assert (span.status, span.attributes["error.type"], span.attributes["http.response.status_code"]) == ("ERROR", str(status), status)


@every_client
def test_no_answer_is_an_error_and_the_exception_is_the_library_s_own(telemetry, call):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(Exception) as raised:
            call("GET", url)

    assert not type(raised.value).__module__.startswith("chegou_otel")
    span = telemetry.span("GET")
    assert span.status == "ERROR"
    assert span.attributes["error.type"]


@every_client
def test_secrets_in_the_url_do_not_leave(telemetry, origin, call):
    call("GET", origin.url("/ok?token=s3cr3tvalue&page=2"))

    telemetry.assert_no_leak("s3cr3tvalue")
    assert "page=2" in telemetry.span("GET").attributes["url.full"]


def test_the_request_of_the_user_s_is_as_it_was(telemetry, origin):
    request = requests.Request("GET", origin.url("/ok")).prepare()
    with requests.Session() as session, chegou_otel.use_correlation_id("call-0005"):
        response = session.send(request)

    assert "traceparent" not in request.headers
    assert response.request is request
    assert "traceparent" in origin.headers()


def test_parallel_tasks_have_their_own_ids(telemetry, origin):
    async def one(n):
        with chegou_otel.use_correlation_id(f"parallel-{n}"):
            async with httpx.AsyncClient() as client:
                await client.get(origin.url(f"/ok?n={n}"))

    async def every():
        await asyncio.gather(*(one(n) for n in range(8)))

    asyncio.run(every())

    assert {(path[-1], headers["x-correlation-id"]) for path, headers in origin.seen} == {(str(n), f"parallel-{n}") for n in range(8)}


def test_an_unknown_method_is_other_with_the_original_beside_it(telemetry, origin):
    requests.request("BREW", origin.url("/ok"), timeout=5)

    span = telemetry.span("HTTP")
    assert (span.attributes["http.request.method"], span.attributes["http.request.method_original"]) == ("_OTHER", "BREW")
