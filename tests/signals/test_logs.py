"""Logs: every record that a logger accepts, whatever the user does to logging, and nothing of the console's changed."""

from __future__ import annotations

import io
import logging
import logging.config
import sys

import pytest
from opentelemetry import _logs, trace
from opentelemetry._logs import LogRecord, SeverityNumber

import chegou_otel


@pytest.fixture
def logger():
    found = logging.getLogger("tests.logs")
    found.setLevel(logging.DEBUG)
    yield found
    found.handlers.clear()
    found.propagate = True
    found.disabled = False
    found.setLevel(logging.NOTSET)


def test_a_record_arrives_with_everything_that_is_known_of_it(telemetry, logger):
    with chegou_otel.use_correlation_id("story-0002"), trace.get_tracer("t").start_as_current_span("s") as span:
        logger.warning("📊 Projeto %s", "ChatBot", extra={"roi": 250, "tags": ["a", "b"]})

    (log,) = telemetry.logs
    assert (log.body, log.severity, log.severity_text, log.logger) == ("📊 Projeto ChatBot", 13, "WARNING", "tests.logs")
    assert (log.trace_id, log.span_id) == (f"{span.get_span_context().trace_id:032x}", f"{span.get_span_context().span_id:016x}")
    assert log.correlation_id == "story-0002"
    assert (log.attributes["roi"], log.attributes["tags"]) == (250, ["a", "b"])
    assert log.attributes["code.file.path"].endswith("test_logs.py")
    assert log.attributes["code.function.name"] == "test_a_record_arrives_with_everything_that_is_known_of_it"
    assert log.attributes["code.line.number"] > 0


def test_an_exception_is_told_with_type_message_and_stack(telemetry, logger):
    try:
        raise KeyError("missing")
    except KeyError:
        logger.exception("failed")

    found = telemetry.logs[0].attributes
    assert (found["exception.type"], found["exception.message"]) == ("KeyError", "'missing'")
    assert "test_logs.py" in found["exception.stacktrace"]


@pytest.mark.parametrize(("level", "number"), [(5, 1), (10, 5), (20, 9), (25, 9), (30, 13), (40, 17), (50, 21), (70, 21)])
def test_levels_map_to_severities(telemetry, logger, level, number):
    logger.setLevel(1)
    logger.log(level, "x")

    assert telemetry.logs[0].severity == number


def test_a_level_that_the_logger_does_not_accept_does_not_arrive(telemetry, logger):
    logger.setLevel(logging.ERROR)
    logger.info("no")

    assert telemetry.logs == []


@pytest.mark.parametrize(
    "configure",
    [
        lambda: logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "handlers": {}, "root": {"handlers": []}}),
        lambda: logging.basicConfig(force=True, stream=io.StringIO()),
        lambda: logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "loggers": {"tests.logs": {"propagate": False, "handlers": []}}}
        ),
    ],
    ids=["dictConfig", "basicConfig", "no propagation, no handlers"],
)
def test_it_survives_what_users_do_to_logging(telemetry, logger, configure):
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        configure()
        logger.error("still here")
    finally:
        root.handlers[:], root.level = before

    assert [log.body for log in telemetry.logs] == ["still here"]


def test_no_handler_is_added_and_the_last_resort_still_speaks(telemetry, logger, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    logger.error("to the console")

    assert root.handlers == []
    assert stream.getvalue() == "to the console\n"
    assert len(telemetry.logs) == 1


def test_formatters_find_the_ids_on_the_record(telemetry, logger):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(correlation_id)s %(trace_id)s %(span_id)s %(message)s"))
    logger.addHandler(handler)
    with chegou_otel.use_correlation_id("story-0003"), trace.get_tracer("t").start_as_current_span("s"):
        logger.info("hi")

    log = telemetry.logs[0]
    assert stream.getvalue() == f"story-0003 {log.trace_id} {log.span_id} hi\n"
    assert "trace_id" not in log.attributes


def test_objects_in_extra_do_not_become_attributes(telemetry, logger):
    class WSGIRequest:
        def __repr__(self):
            return "<WSGIRequest ?token=SECRET>"

    logger.error("Not Found", extra={"request": WSGIRequest(), "status_code": 404})

    assert telemetry.logs[0].attributes["status_code"] == 404
    assert "request" not in telemetry.logs[0].attributes
    telemetry.assert_no_leak("SECRET")


def test_secrets_are_redacted_in_body_extra_and_exception(telemetry, logger):
    try:
        raise ValueError("password=hunter2aaa")
    except ValueError:
        logger.exception("authorization: Bearer abcdefghijklmnop", extra={"api_key": "k-123456789"})

    telemetry.assert_no_leak("hunter2aaa", "abcdefghijklmnop", "k-123456789")


def test_wrong_arguments_are_the_handlers_to_complain_about(telemetry, logger):
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.error("%d apples", "many")

    assert telemetry.logs[0].body == "%d apples"


@pytest.mark.parametrize("name", ["chegou_otel", "chegou_otel.x", "opentelemetry.sdk"])
def test_our_own_lines_do_not_feed_themselves(telemetry, name):
    logging.getLogger(name).warning("about telemetry")

    assert telemetry.logs == []


def test_the_logs_api_arrives_too(telemetry):
    with chegou_otel.use_correlation_id("story-0004"), trace.get_tracer("t").start_as_current_span("s"):
        _logs.get_logger("api").emit(LogRecord(body="hello", severity_number=SeverityNumber.ERROR, attributes={"a": 1}, event_name="ev"))

    (log,) = telemetry.logs
    assert (log.body, log.severity, log.logger, log.event_name, log.attributes["a"]) == ("hello", 17, "api", "ev", 1)
    assert log.correlation_id == "story-0004"
    assert log.trace_id == telemetry.spans[0].trace_id


def test_uids_are_unique(telemetry, logger):
    for _ in range(100):
        logger.info("x")

    assert len({log.attributes["log.record.uid"] for log in telemetry.logs}) == 100
