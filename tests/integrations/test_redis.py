"""Redis: a span per command and per pipeline, without arguments, against a real server."""

from __future__ import annotations

import pytest
import redis
import redis.asyncio
from opentelemetry.context import attach, detach, set_value

import chegou_otel
from chegou_otel.integrations.redis import QUIET


@pytest.fixture
def client(telemetry, redis_client):
    telemetry.clear()
    return redis_client


def test_a_command_is_a_client_span_without_its_arguments(telemetry, client, redis_port):
    with chegou_otel.use_correlation_id("redis-0001"):
        client.set("user:jane@example.org", "secretvalue")

    span = telemetry.span("SET")
    assert (span.kind, span.correlation_id) == ("CLIENT", "redis-0001")
    assert span.attributes["db.system.name"] == "redis"
    assert (span.attributes["server.port"], span.attributes["db.namespace"]) == (redis_port, "0")
    telemetry.assert_no_leak("jane@example.org", "secretvalue")


def test_a_pipeline_is_one_span(telemetry, client):
    with client.pipeline() as pipe:
        pipe.set("a", 1).get("a").set("b", 2)
        assert pipe.execute() == [True, b"1", True]

    span = telemetry.span("PIPELINE GET SET")
    assert span.attributes["db.operation.batch.size"] == 3
    assert len(telemetry.spans) == 1


def test_an_error_is_told_and_raised(telemetry, client):
    client.set("text", "x")
    with pytest.raises(redis.ResponseError):
        client.incr("text")

    span = telemetry.span("INCRBY")
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "redis.exceptions.ResponseError")


async def test_async_commands_and_pipelines(telemetry, redis_port):
    async with redis.asyncio.Redis(port=redis_port) as client:
        await client.set("a", 1)
        async with client.pipeline() as pipe:
            assert await pipe.get("a").execute() == [b"1"]

    assert [name for name in telemetry.span_names() if "CLIENT" not in name] == ["SET", "PIPELINE GET"]


def test_what_runs_quietly_makes_no_span(telemetry, client):
    token = attach(set_value(QUIET, True))
    try:
        client.get("a")
    finally:
        detach(token)

    assert telemetry.spans == []


def test_the_duration_is_measured(telemetry, client):
    client.get("a")
    client.get("b")

    points = telemetry.metrics["db.client.operation.duration"].points
    assert [(p.attributes["db.operation.name"], p.count) for p in points if p.attributes["db.operation.name"] == "GET"] == [("GET", 2)]
