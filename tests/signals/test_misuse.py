"""What an application passes to a span by mistake is never raised at it, and costs no span."""

from __future__ import annotations

import logging
from datetime import datetime

import pytest
from opentelemetry import trace
from opentelemetry.trace import Link, Status, StatusCode

from chegou_otel.signals import misuse


class Angry:
    """Nothing about it can be asked."""

    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __bool__ = __hash__ = __eq__ = __str__


@pytest.fixture
def tracer(telemetry, monkeypatch):
    monkeypatch.setattr(misuse, "_said", set())
    return trace.get_tracer("mine")


CALLS = {
    "set_attributes(None)": lambda span: span.set_attributes(None),
    "set_attributes(5)": lambda span: span.set_attributes(5),
    "set_attributes(list)": lambda span: span.set_attributes([("a", 1)]),
    "set_attributes(None key)": lambda span: span.set_attributes({None: 1}),
    "set_attribute(int key)": lambda span: span.set_attribute(5, object()),
    "set_attribute(unhashable key)": lambda span: span.set_attribute([], 1),
    "set_attribute(empty key)": lambda span: span.set_attribute("", 1),
    "set_attribute(odd key)": lambda span: span.set_attribute(Angry(), 1),
    "set_attribute(object)": lambda span: span.set_attribute("odd", Angry()),
    "set_attribute(nested)": lambda span: span.set_attribute("odd", {"a": [1, None, object(), Angry()], 5: 6}),
    "add_event(None)": lambda span: span.add_event(None),
    "add_event(odd)": lambda span: span.add_event(Angry()),
    "add_event(attributes=5)": lambda span: span.add_event("event", 5),
    "add_event(attributes=text)": lambda span: span.add_event("event", "text"),
    "add_event(attributes with int key)": lambda span: span.add_event("event", {5: object()}),
    "add_event(timestamp=text)": lambda span: span.add_event("event", timestamp="now"),
    "add_event(timestamp=-1)": lambda span: span.add_event("event", timestamp=-1),
    "add_event(timestamp=huge)": lambda span: span.add_event("event", timestamp=2**64),
    "record_exception(text)": lambda span: span.record_exception("text"),
    "record_exception(None)": lambda span: span.record_exception(None),
    "record_exception(class)": lambda span: span.record_exception(ValueError),
    "record_exception(odd)": lambda span: span.record_exception(Angry()),
    "record_exception(attributes=5)": lambda span: span.record_exception(ValueError("x"), 5),
    "set_status(text)": lambda span: span.set_status("x"),
    "set_status(None)": lambda span: span.set_status(None),
    "set_status(description=5)": lambda span: span.set_status(StatusCode.ERROR, 5),
    "set_status(OK, text)": lambda span: span.set_status(StatusCode.OK, "fine"),
    "set_status(Status, text)": lambda span: span.set_status(Status(StatusCode.ERROR), "x"),
    "update_name(None)": lambda span: span.update_name(None),
    "update_name(odd)": lambda span: span.update_name(Angry()),
    "add_link(None)": lambda span: span.add_link(None),
    "add_link(text)": lambda span: span.add_link("x"),
    "add_link(Link)": lambda span: span.add_link(Link(span.get_span_context())),
    "add_link(attributes=5)": lambda span: span.add_link(span.get_span_context(), 5),
    "end(text)": lambda span: span.end("x"),
    "end(float)": lambda span: span.end(1.5),
    "end(-1)": lambda span: span.end(-1),
    "end(datetime)": lambda span: span.end(datetime.now()),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wrong_call_raises_nothing_and_the_span_arrives(telemetry, tracer, call):
    span = tracer.start_span("work", attributes={"kept": 1})
    call(span)
    span.end()

    (found,) = telemetry.spans
    assert found.attributes["kept"] == 1
    assert found.end >= found.start


STARTS = {
    "name": ("not a name", {"name": None}),
    "odd name": ("not a name", {"name": Angry()}),
    "attributes": ("work", {"attributes": 5}),
    "attributes with int key": ("work", {"attributes": {5: 1}}),
    "kind": ("work", {"kind": 1}),
    "links": ("work", {"links": 5}),
    "one link": ("work", {"links": [None]}),
    "start": ("work", {"start_time": "x"}),
    "context": ("work", {"context": 5}),
}


@pytest.mark.parametrize(("_name", "wrong"), STARTS.values(), ids=STARTS)
def test_a_wrong_start_raises_nothing_and_the_span_arrives(telemetry, tracer, _name, wrong):
    tracer.start_span(**{"name": "work", **wrong}).end()
    with tracer.start_as_current_span(**{"name": "work", **wrong}):
        tracer.start_span("child").end()

    first, child, second = telemetry.spans
    assert child.parent_id == second.span_id
    assert first.name == second.name


def test_what_is_right_beside_it_stays(telemetry, tracer):
    span = tracer.start_span("work", attributes={5: 1, "start": 2})
    span.set_attributes({None: 1, "later": 3})
    span.add_event("event", {5: 1, "told": 4})
    span.record_exception("text")
    span.end()

    found = telemetry.span("work")
    assert (found.attributes["start"], found.attributes["later"]) == (2, 3)
    assert found.events[0].attributes == {"told": 4}
    assert found.events[1].attributes["exception.message"] == "text"


def test_it_is_said_once_without_the_value(telemetry, tracer, caplog):
    span = tracer.start_span("work")
    with caplog.at_level(logging.WARNING, "chegou_otel"):
        for _ in range(3):
            span.set_status("secret")
    span.end()

    assert len(caplog.records) == 1
    assert "status" in caplog.text
    assert "secret" not in caplog.text
