"""Real spans, logs and metrics, as frames."""

from __future__ import annotations

import os

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from chegou_otel.delivery.otlp import resource_block
from chegou_otel.delivery.protobuf import field

RESOURCE = resource_block({"service.name": "shop"})


def span(name, size=0):
    attributes = []
    made = Span(name=name, trace_id=os.urandom(16), span_id=os.urandom(8), attributes=attributes)
    if size:
        made.attributes.add(key="filler").value.string_value = "x" * size
    return field(b"\x12", made.SerializeToString())


def log(body):
    return field(b"\x12", LogRecord(body=AnyValue(string_value=body)).SerializeToString())


def metric(name):
    made = Metric(name=name)
    made.gauge.data_points.add(as_int=1)
    return field(b"\x12", made.SerializeToString())


def template(prefix):
    """For storms of signals: makes spans ``prefix00000042`` without calling into protobuf, whose destructors would be struck."""
    made = span(f"{prefix}########", 50)
    before, _, after = made.partition(b"########")
    return lambda number: before + b"%08d" % number + after
