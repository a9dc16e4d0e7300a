"""Hand-made OTLP requests: what any sender could put on the wire, without our library in between."""

from __future__ import annotations

import os
import time
import uuid

import grpc
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

Value = str | int | bool | list[str]


def any_value(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=each) for each in value]))
    return AnyValue(string_value=value)


def attributes(values: dict[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def resource(service: str) -> Resource:
    values: dict[str, Value] = {"service.name": service, "service.instance.id": str(uuid.uuid4()), "deployment.environment.name": "test"}
    return Resource(attributes=attributes(values))


def post(endpoint: str, path: str, message: ExportTraceServiceRequest | ExportLogsServiceRequest | ExportMetricsServiceRequest) -> None:
    answer = requests.post(
        endpoint + path, data=message.SerializeToString(), headers={"Content-Type": "application/x-protobuf"}, timeout=10
    )
    assert answer.status_code == 200, answer.text


def send_trace(endpoint: str, service: str, names: list[str], values: dict[str, Value], *, status_message: str = "") -> str:
    """One trace: the first name is the root, the others are its children; every span has the values. Returns the trace ID."""
    request = trace_request(service, names, values, status_message)
    post(endpoint, "/v1/traces", request)
    return request.resource_spans[0].scope_spans[0].spans[0].trace_id.hex()


def send_trace_by_grpc(address: str, service: str, names: list[str], values: dict[str, Value]) -> None:
    with grpc.insecure_channel(address) as channel:
        TraceServiceStub(channel).Export(trace_request(service, names, values), timeout=10)


def trace_request(service: str, names: list[str], values: dict[str, Value], status_message: str = "") -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    container = request.resource_spans.add(resource=resource(service)).scope_spans.add()
    trace_id, root = os.urandom(16), os.urandom(8)
    now = time.time_ns()
    for number, name in enumerate(names):
        span = container.spans.add(
            trace_id=trace_id,
            span_id=root if number == 0 else os.urandom(8),
            parent_span_id=b"" if number == 0 else root,
            name=name,
            kind=2 if number == 0 else 1,
            start_time_unix_nano=now - 50_000_000,
            end_time_unix_nano=now,
            attributes=attributes(values),
        )
        if status_message:
            span.status.code = 2
            span.status.message = status_message
    return request


def send_log(endpoint: str, service: str, body: str, values: dict[str, Value]) -> None:
    request = ExportLogsServiceRequest()
    container = request.resource_logs.add(resource=resource(service)).scope_logs.add()
    container.log_records.add(
        time_unix_nano=time.time_ns(), severity_number=9, severity_text="INFO", body=any_value(body), attributes=attributes(values)
    )
    post(endpoint, "/v1/logs", request)


def send_histogram(endpoint: str, service: str, name: str, unit: str, seconds: list[float], values: dict[str, Value]) -> None:
    """One cumulative histogram with two buckets, as an SDK would send it."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add(resource=resource(service)).scope_metrics.add().metrics.add(name=name, unit=unit)
    metric.histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    now = time.time_ns()
    metric.histogram.data_points.add(
        start_time_unix_nano=now - 1_000_000_000,
        time_unix_nano=now,
        count=len(seconds),
        sum=sum(seconds),
        explicit_bounds=[0.1],
        bucket_counts=[sum(s <= 0.1 for s in seconds), sum(s > 0.1 for s in seconds)],
        attributes=attributes(values),
    )
    post(endpoint, "/v1/metrics", request)
