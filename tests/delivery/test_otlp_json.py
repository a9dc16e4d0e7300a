"""OTLP in JSON: the same as in protobuf, field by field, and read back by protobuf's own parser."""

from __future__ import annotations

import json
import math
import struct
import time
from itertools import pairwise

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from chegou_otel.delivery import otlp_json
from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.endpoints import Endpoint, endpoints
from chegou_otel.delivery.frames import Kind, Signal
from chegou_otel.delivery.otlp_json import JsonTransport, translate
from chegou_otel.delivery.protobuf import field
from chegou_otel.local import otlp
from tests.delivery.items import log, metric, span
from tests.delivery.receiver import JSON, Answer

REQUESTS = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}
#: Of the profiles signal alone.
ELSEWHERE = {"keyStrindex", "stringValueStrindex"}
SCALARS = {"int32": -7, "int64": -(1 << 62), "uint32": 7, "uint64": (1 << 64) - 1, "sint32": -9, "fixed32": 257, "fixed64": (1 << 63) + 1}
SCALARS |= {"sfixed64": -(1 << 63), "double": 0.1, "bool": True, "string": 'ü"\\\n\x01💡', "bytes": b"\x00\xff" * 8, "enum": 2}
TYPES = {1: "double", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}
TYPES |= {14: "enum", 16: "sfixed64", 17: "sint32", 18: "sint64"}


def told(signal, message_or_bytes):
    body = message_or_bytes if isinstance(message_or_bytes, bytes) else message_or_bytes.SerializeToString()
    return json.loads(translate(signal, body, time.monotonic() + 60))


def variants(message, depth=0):
    """Fill every field; of those that exclude each other, one after the other. Yields whenever there is something new to see."""
    groups = [group for group in message.DESCRIPTOR.oneofs if len(group.fields) > 1]
    for description in message.DESCRIPTOR.fields:
        if description.json_name not in ELSEWHERE and description.containing_oneof not in groups:
            yield from fill(message, description, depth)
    for group in groups:
        for description in group.fields:
            if description.json_name not in ELSEWHERE and (description.message_type is None or depth < 8):
                message.ClearField(message.WhichOneof(group.name) or description.name)
                yield from fill(message, description, depth)


def fill(message, description, depth):
    field = getattr(message, description.name)
    if description.message_type is None:
        value = SCALARS[TYPES[description.type]]
        if hasattr(field, "append"):
            field.extend([value, value])
        else:
            setattr(message, description.name, value)
        yield
    elif hasattr(field, "append"):
        inner = description.message_type._concrete_class()
        for _ in variants(inner, depth + 1):
            field.append(inner)
        yield
    else:
        field.SetInParent()
        yield from variants(field, depth + 1)


def every_field(signal):
    """A request in which every field of every message stands, and every alternative."""
    message = REQUESTS[signal]()
    for _ in variants(message):
        pass
    return message


@pytest.mark.parametrize("long", [0, otlp_json._LONG], ids=["piece by piece", "as usual"])
@pytest.mark.parametrize("signal", Signal)
def test_every_field_comes_back(signal, long, monkeypatch):
    """The schema has no field too few, too many or misnamed."""
    monkeypatch.setattr(otlp_json, "_LONG", long)
    message = every_field(signal)
    written = translate(signal, message.SerializeToString(), time.monotonic() + 60)
    assert otlp.parse(signal.name.lower(), written, JSON) == message


def test_the_mapping_of_the_specification():
    """IDs in hex, names in camelCase, 64-bit integers as text, enumerations as numbers."""
    request = ExportTraceServiceRequest()
    made = request.resource_spans.add().scope_spans.add().spans.add()
    made.trace_id, made.span_id, made.name, made.kind = bytes(range(16)), b"\xab" * 8, "GET /", 3
    made.start_time_unix_nano, made.status.code = 1 << 62, 2
    made.attributes.add(key="n").value.int_value = -5
    made.attributes.add(key="b").value.bytes_value = b"\xff\x00"
    made.attributes.add(key="nothing").value.SetInParent()
    made.attributes.add(key="list").value.array_value.values.add().bool_value = False
    assert told(Signal.TRACES, request) == {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": "000102030405060708090a0b0c0d0e0f",
                                "spanId": "abababababababab",
                                "name": "GET /",
                                "kind": 3,
                                "startTimeUnixNano": "4611686018427387904",
                                "status": {"code": 2},
                                "attributes": [
                                    {"key": "n", "value": {"intValue": "-5"}},
                                    {"key": "b", "value": {"bytesValue": "/wA="}},
                                    {"key": "nothing", "value": {}},
                                    {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": False}]}}},
                                ],
                            }
                        ]
                    }
                ]
            }
        ]
    }


@pytest.mark.parametrize("value, text", [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (1e300, 1e300), (-0.0, -0.0)])
def test_numbers_that_json_has_no_word_for(value, text):
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.data_points.add(as_double=value)
    (point,) = told(Signal.METRICS, request)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"]
    assert point == {"asDouble": text}


def test_a_list_that_was_not_packed():
    point = b"\x31" + struct.pack("<Q", 3) + b"\x31" + struct.pack("<Q", 4) + field(b"\x3a", struct.pack("<d", 0.5))
    body = b"".join([point])
    for tag in (b"\x0a", b"\x4a", b"\x12", b"\x12", b"\x0a"):
        body = field(tag, body)
    (found,) = told(Signal.METRICS, body)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["histogram"]["dataPoints"]
    assert found == {"bucketCounts": ["3", "4"], "explicitBounds": [0.5]}


def test_text_that_is_no_utf_8_and_fields_from_the_future():
    body = field(b"\x12", field(b"\x12", field(b"\x2a", b"a\xffb") + b"\xf8\x3f\x01"))
    assert told(Signal.TRACES, field(b"\x0a", body))["resourceSpans"][0]["scopeSpans"][0]["spans"] == [{"name": "a\ufffdb"}]


def test_many_attributes_do_not_fill_the_memory():
    request = ExportTraceServiceRequest()
    made = request.resource_spans.add().scope_spans.add().spans.add()
    for number in range(3 * otlp_json._KEPT):
        made.attributes.add(key=f"k{number}").value.int_value = number
    found = told(Signal.TRACES, request)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
    assert [each["value"]["intValue"] for each in found] == [str(number) for number in range(3 * otlp_json._KEPT)]
    assert len(otlp_json._messages()["KeyValue"]._kept) <= otlp_json._KEPT


# -- on the way


def batch(count=1500):
    items = b"".join(span(f"span {number}", 200) for number in range(count))
    return field(b"\x0a", field(b"\x12", items))


def test_others_run_while_a_batch_is_translated(monkeypatch):
    """A pause after each slice of a millisecond: nobody waits for the whole batch."""
    marks = [time.thread_time()]
    monkeypatch.setattr(otlp_json.time, "sleep", lambda _seconds: marks.append(time.thread_time()))
    translate(Signal.TRACES, batch(), time.monotonic() + 60)
    marks.append(time.thread_time())
    slices = sorted(after - before for before, after in pairwise(marks))
    assert len(slices) > 10
    assert slices[-2] < 0.004  # of processor time, on a machine that may be busy; the longest may be the machine's own


def test_a_translation_keeps_the_deadline():
    way = JsonTransport(Signal.TRACES, Endpoint("http://127.0.0.1:9/v1/traces", protocol="http/json"), {})
    begin = time.monotonic()
    answer = way.send(batch(20_000), begin + 0.05)
    assert answer.verdict is Verdict.UNSENT
    assert time.monotonic() - begin < 0.5


def test_what_is_no_otlp_is_not_tried_for_ever():
    way = JsonTransport(Signal.TRACES, Endpoint("http://127.0.0.1:9/v1/traces", protocol="http/json"), {})
    assert way.send(b"\xff" * 20, time.monotonic() + 1).verdict is Verdict.REJECTED


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_all_signals_arrive(make, scope, receiver, compression):
    receiver.default = Answer(body=b'{"partialSuccess": {}}', content_type="application/json; charset=utf-8")
    recorder = make(
        endpoints=endpoints(receiver.url, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_COMPRESSION": compression})
    )
    recorder.append(Kind.SPAN, scope, span("a span", 3000))
    recorder.append(Kind.LOG, scope, log("a log"))
    recorder.append(Kind.METRIC, scope, metric("a metric"))
    assert recorder.flush(5)

    assert receiver.names() == ["a span"]
    assert [each.body.string_value for each, _, _ in receiver.logs] == ["a log"]
    assert [each.name for each, _, _ in receiver.metrics] == ["a metric"]
    assert {headers["content-type"] for _, headers, _ in receiver.requests} == {JSON}
    resource = receiver.spans[0][2]
    assert (resource.attributes[0].key, resource.attributes[0].value.string_value) == ("service.name", "shop")
    assert receiver.spans[0][1] == "tests.delivery"


@pytest.mark.parametrize(
    "body, expected",
    [
        (b"{}", (0, "")),
        (b'{"partialSuccess": null}', (0, "")),
        (b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "old"}}', (3, "old")),
        (b'{"partialSuccess": {"rejectedLogRecords": 4}, "future": [1]}', (4, "")),
        (b'{"partialSuccess": {"rejectedDataPoints": null, "rejectedFuture": "x"}}', (0, "")),
        (b"[]", None),
        (b'"ok"', None),
        (b"<html>", None),
        (b'{"partialSuccess": []}', None),
        (b'{"partialSuccess": {"rejectedSpans": "3.5"}}', None),
        (b'{"partialSuccess": {"rejectedSpans": true}}', None),
        (b'{"partialSuccess": {"rejectedSpans": 1.5}}', None),
        (b'{"partialSuccess": {"errorMessage": 5}}', None),
        (b"[" * 60_000, None),
        (b'{"a": "\xff"}', None),
    ],
)
def test_an_answer_in_json_is_read_strictly(receiver, body, expected):
    receiver.default = Answer(body=body, content_type=JSON)
    way = JsonTransport(Signal.TRACES, Endpoint(f"{receiver.url}/v1/traces", protocol="http/json"), {})
    answer = way.send(b"", time.monotonic() + 2)
    if expected is None:
        assert answer.verdict is Verdict.AMBIGUOUS
    else:
        assert (answer.verdict, answer.rejected, answer.reason) == (Verdict.DELIVERED, *expected)


def test_a_refusal_in_json_says_why(receiver):
    receiver.default = Answer(400, b'{"code": 3, "message": "no trace ID"}', JSON)
    way = JsonTransport(Signal.TRACES, Endpoint(f"{receiver.url}/v1/traces", protocol="http/json"), {})
    answer = way.send(b"", time.monotonic() + 2)
    assert (answer.verdict, answer.reason) == (Verdict.REJECTED, "HTTP 400 Bad Request no trace ID")
    receiver.default = Answer(400, b'["?"]', JSON)
    assert way.send(b"", time.monotonic() + 2).verdict is Verdict.REJECTED
