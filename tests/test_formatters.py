"""Formatters: both carry the same IDs, neither lets a message forge a line."""

from __future__ import annotations

import io
import json
import logging
import uuid

import pytest
from opentelemetry import trace

import chegou_otel
from chegou_otel.formatters import JSONFormatter, ReadableFormatter


@pytest.fixture
def lines():
    """A logger that writes through the formatter it is given; yields ``log(formatter) -> (logger, stream)``."""
    made = []

    def build(formatter):
        logger, stream = logging.getLogger(f"tests.formatters.{len(made)}"), io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        made.append((logger, handler))
        return logger, stream

    yield build
    for logger, handler in made:
        logger.removeHandler(handler)


def test_json_and_readable_carry_the_ids_of_the_otlp_record(telemetry, lines):
    (first, as_json), (second, readable) = lines(JSONFormatter()), lines(ReadableFormatter())
    with chegou_otel.use_correlation_id("story-0042"), trace.get_tracer("t").start_as_current_span("s"):
        first.info("📊 olá", extra={"pedido": 7, "chave": uuid.UUID(int=1)})
        second.info("📊 olá")

    told, arrived = json.loads(as_json.getvalue()), telemetry.logs[0]
    assert (told["correlation_id"], told["trace_id"], told["span_id"]) == ("story-0042", arrived.trace_id, arrived.span_id)
    assert (told["message"], told["level"], told["pedido"], told["chave"]) == ("📊 olá", "INFO", 7, str(uuid.UUID(int=1)))
    assert told["timestamp"].endswith("+00:00")
    assert f"[story-0042] 📊 olá trace={arrived.trace_id} span={arrived.span_id}" in readable.getvalue()


def test_without_setup_the_current_id_is_found(lines):
    logger, stream = lines(JSONFormatter())
    with chegou_otel.use_correlation_id("story-0043"):
        logger.warning("x")

    assert json.loads(stream.getvalue())["correlation_id"] == "story-0043"


@pytest.mark.parametrize("formatter", [JSONFormatter(), ReadableFormatter()])
def test_a_message_stays_on_its_line(lines, formatter):
    logger, stream = lines(formatter)
    logger.info("one\r\n[ERROR] two\x1b[31m\u2028three")

    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_exceptions_and_odd_objects_are_told(lines):
    logger, stream = lines(JSONFormatter())
    try:
        raise ValueError("no luck")
    except ValueError:
        logger.exception("failed", extra={"request": object()})

    told = json.loads(stream.getvalue())
    assert "ValueError: no luck" in told["exception"]
    assert told["request"] == "<object>"
