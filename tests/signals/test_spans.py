"""Spans: the SDK's view for everybody else, the same bytes for all, and the attributes that every span carries."""

from __future__ import annotations

import os
import time
import uuid
from decimal import Decimal

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import TracerProvider as SdkProvider
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags

import chegou_otel
from chegou_otel.signals.encoding import Static


@pytest.fixture
def tracer(telemetry):
    return trace.get_tracer("mine", "1.2")


def test_a_span_is_an_sdk_span_to_others(telemetry, tracer):
    with tracer.start_as_current_span("work", attributes={"a": 1}) as span:
        assert isinstance(span, SdkSpan)
        assert isinstance(trace.get_tracer_provider(), SdkProvider)
        assert span.attributes["a"] == 1
        assert span.name == "work"
        assert '"name": "work"' in span.to_json()
        assert "work" in repr(span)


def test_children_join_their_parent_s_trace(telemetry, tracer):
    with tracer.start_as_current_span("parent") as parent, tracer.start_as_current_span("child"):
        pass

    child, above = telemetry.spans
    assert (child.trace_id, child.parent_id) == (above.trace_id, above.span_id)
    assert int(above.span_id, 16) == parent.get_span_context().span_id
    assert above.parent_id == ""
    assert len(above.trace_id) == 32
    assert above.start <= child.start <= child.end <= above.end


def test_every_kind_of_value_arrives_as_itself(telemetry, tracer):
    given = {
        "text": "ação 📊", "int": -5, "big": 2**70, "float": 1.5, "yes": True, "none": None, "bytes": b"\x00\xff", "list": ["a", 1, None],
        "map": {"k": [1.5, {"deep": "er"}]}, "uuid": uuid.UUID(int=7), "money": Decimal("1.10"), "lone": "\udc80",
    }  # fmt: skip
    tracer.start_span("values", attributes=given).end()

    found = telemetry.span("values").attributes
    assert found == {**given, "big": str(2**70), "uuid": str(uuid.UUID(int=7)), "money": "1.10", "lone": "\\udc80"}


def test_an_object_becomes_its_type_s_name_never_its_repr(telemetry, tracer):
    class Request:
        def __repr__(self):
            return "token=SECRET"

    tracer.start_span("odd", attributes={"request": Request()}).end()

    telemetry.assert_no_leak("SECRET")
    assert "Request" in telemetry.span("odd").attributes["request"]


def test_every_span_carries_the_correlation_id(telemetry, tracer):
    with chegou_otel.use_correlation_id("story-0001"), tracer.start_as_current_span("a"), tracer.start_as_current_span("b"):
        telemetry.telemetry.runtime.tracer("x").leaf(Static("c", 2), time.time_ns())

    assert [span.correlation_id for span in telemetry.spans] == ["story-0001"] * 3


def test_an_exception_is_an_error_with_one_event(telemetry, tracer):
    with pytest.raises(ValueError), tracer.start_as_current_span("bad"):
        raise ValueError("no luck")

    span = telemetry.span("bad")
    assert (span.status, [event.name for event in span.events]) == ("ERROR", ["exception"])
    assert span.events[0].attributes["exception.type"] == "ValueError"
    assert span.events[0].attributes["exception.message"] == "no luck"
    assert "test_spans.py" in span.events[0].attributes["exception.stacktrace"]


def test_an_exception_whose_text_fails_is_told_all_the_same(telemetry, tracer):
    class Nasty(Exception):
        def __str__(self):
            raise RuntimeError

    span = tracer.start_span("nasty")
    span.record_exception(Nasty())
    span.end()

    assert "could not be read" in telemetry.span("nasty").events[0].attributes["exception.message"]


def test_events_links_status_and_name_can_change_until_the_end_and_not_after(telemetry, tracer):
    other = SpanContext(1, 2, True, TraceFlags(1))
    span = tracer.start_span("first", kind=SpanKind.CLIENT, links=[Link(other, {"why": "test"})])
    span.update_name("second")
    span.add_event("happened", {"n": 1}, 5)
    span.set_status(StatusCode.OK)
    span.set_status(StatusCode.ERROR, "too late: OK is final")
    span.end(7)
    span.set_attribute("late", 1)
    span.add_event("late")
    span.end(9)

    found = telemetry.span("second")
    assert (found.kind, found.status, found.end) == ("CLIENT", "OK", 7)
    assert [(e.name, e.attributes, e.time) for e in found.events] == [("happened", {"n": 1}, 5)]
    assert [(link.trace_id, link.span_id, link.attributes) for link in found.links] == [(f"{1:032x}", f"{2:016x}", {"why": "test"})]
    assert "late" not in found.attributes
    assert len(telemetry.spans) == 1


def test_an_attribute_set_later_replaces_the_constant_one(telemetry):
    tracer = telemetry.telemetry.runtime.tracer("x")
    span = tracer.begin(Static("s", 1, {"http.route": "/", "kept": 1}))
    span.set_attribute("http.route", "/mine/")
    span.end()

    assert telemetry.span("s").attributes == {"http.route": "/mine/", "kept": 1}


def test_as_a_decorator_each_call_is_a_span(telemetry, tracer):
    @tracer.start_as_current_span("decorated")
    def work(n):
        return n + trace.get_current_span().get_span_context().span_id * 0

    assert [work(1), work(2)] == [1, 2]
    assert telemetry.span_names() == ["decorated", "decorated"]
    assert len(telemetry.trace_ids()) == 2


async def test_as_a_decorator_of_a_coroutine_the_span_lasts_as_long_as_it_runs(telemetry, tracer):
    import asyncio

    @tracer.start_as_current_span("slow", record_exception=False)
    async def work():
        await asyncio.sleep(0.02)
        raise ValueError("no luck")

    with pytest.raises(ValueError):
        await work()
    span = telemetry.span("slow")
    assert span.seconds >= 0.02
    assert (span.status, span.events) == ("ERROR", ())


def test_end_on_exit_can_be_left_to_the_caller(telemetry, tracer):
    with tracer.start_as_current_span("open", end_on_exit=False) as span:
        pass
    assert telemetry.spans == []
    span.end()
    assert telemetry.span_names() == ["open"]


def test_limits_hold(telemetry, tracer):
    span = tracer.start_span("many")
    for n in range(200):
        span.set_attribute(f"k{n}", n)
        span.add_event("e")
        span.add_link(SpanContext(1, n + 1, True))
    span.end()

    found = telemetry.span("many")
    assert (len(found.attributes), len(found.events), len(found.links)) == (128, 128, 128)


def test_an_unsampled_parent_has_unsampled_children(telemetry, tracer):
    remote = trace.NonRecordingSpan(SpanContext(5, 6, True, TraceFlags(0)))
    with trace.use_span(remote), tracer.start_as_current_span("child") as child:
        assert not child.is_recording()
        assert child.get_span_context().trace_id == 5

    assert telemetry.spans == []


def test_a_sampler_from_the_environment_is_asked(monkeypatch):
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    from chegou_otel.redaction import Redactor
    from chegou_otel.signals.encoding import Encoder
    from chegou_otel.signals.tracing import State, TracerProvider

    recorded = []
    state = State(lambda *frame: recorded.append(frame), Encoder(Redactor()), fast=True)
    provider = TracerProvider(state, SdkProvider().resource, sampler=ALWAYS_OFF)
    span = provider.get_tracer("x").start_span("never")
    span.end()

    assert not span.is_recording()
    assert recorded == []


def test_suppressed_instrumentation_records_nothing(telemetry, tracer):
    token = context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        with tracer.start_as_current_span("quiet"):
            telemetry.telemetry.runtime.tracer("x").leaf(Static("leaf", 2), time.time_ns())
    finally:
        context.detach(token)

    assert telemetry.spans == []


def test_processors_of_others_see_every_span_and_the_redacted_view(telemetry, tracer):
    class Watch(SpanProcessor):
        def __init__(self):
            self.started, self.ended = [], []

        def on_start(self, span, parent_context=None):
            self.started.append(span.name)

        def on_end(self, span):
            self.ended.append(span)

    watch = Watch()
    provider = trace.get_tracer_provider()
    provider.add_span_processor(watch)
    try:
        with tracer.start_as_current_span("seen", attributes={"password": "hunter2", "n": 1}):
            telemetry.telemetry.runtime.tracer("x").leaf(Static("leaf", 2, {"c": 1}), time.time_ns())
    finally:
        provider._active_span_processor._span_processors = ()
        provider._adopt_processors()

    assert watch.started == ["seen", "leaf"]
    assert [span.name for span in watch.ended] == ["leaf", "seen"]
    seen = watch.ended[1]
    assert isinstance(seen, ReadableSpan)
    assert "hunter2" not in str(dict(seen.attributes))
    assert seen.attributes["n"] == 1


def test_a_forked_child_s_ids_differ_and_the_resource_stays(telemetry, tracer):
    reader, writer = os.pipe()
    before = dict(trace.get_tracer_provider().resource.attributes)
    ids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            span = tracer.start_span("in child")
            same = dict(trace.get_tracer_provider().resource.attributes) == before
            os.write(writer, f"{span.get_span_context().span_id} {same}\n".encode())
            os._exit(0)
        os.waitpid(pid, 0)
    ids = os.read(reader, 1000).decode().split("\n")[:2]

    assert ids[0].split()[0] != ids[1].split()[0]
    assert all(line.endswith("True") for line in ids)
