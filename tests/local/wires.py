"""OTLP requests as any sender would write them, for a story that has a bit of everything."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

MS = 1_000_000
PROTOBUF = {"Content-Type": "application/x-protobuf"}
KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}


def uuid7(milliseconds: int | None = None) -> str:
    made = milliseconds if milliseconds is not None else time.time_ns() // MS
    return str(uuid.UUID(int=made << 80 | 7 << 76 | 2 << 62 | int.from_bytes(os.urandom(7), "big")))


def any_value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=attributes(value)))
    return AnyValue(string_value=value)


def attributes(values: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def resource(service: str, role: str = "web") -> Resource:
    return Resource(attributes=attributes({"service.name": service, "chegou.role": role, "service.instance.id": str(uuid.uuid4())}))


@dataclass
class Sender:
    """What one process of a service sends: spans and logs of one trace and one correlation ID."""

    service: str = "hub"
    role: str = "web"
    trace_id: bytes = field(default_factory=lambda: os.urandom(16))
    correlation_id: str = field(default_factory=uuid7)
    begin: int = field(default_factory=lambda: time.time_ns() - 1000 * MS)

    def __post_init__(self) -> None:
        self.traces = ExportTraceServiceRequest()
        self._spans = self.traces.resource_spans.add(resource=resource(self.service, self.role)).scope_spans.add().spans
        self.logs = ExportLogsServiceRequest()
        scope = self.logs.resource_logs.add(resource=resource(self.service, self.role)).scope_logs.add()
        scope.scope.name = "hub.views"
        self._logs = scope.log_records

    def span(
        self,
        name: str,
        kind: str = "INTERNAL",
        at: float = 0,
        took: float = 1,
        parent: bytes = b"",
        error: str = "",
        span_id: bytes | None = None,
        **values: Any,
    ) -> bytes:
        """Times in milliseconds; `__` in a keyword stands for a dot. Returns the span's ID."""
        span_id = os.urandom(8) if span_id is None else span_id
        given = {key.replace("__", "."): value for key, value in values.items()}
        span = self._spans.add(
            trace_id=self.trace_id,
            span_id=span_id,
            parent_span_id=parent,
            name=name,
            kind=KINDS[kind],
            start_time_unix_nano=self.begin + int(at * MS),
            end_time_unix_nano=self.begin + int((at + took) * MS),
            attributes=attributes({**({"correlation_id": self.correlation_id} if self.correlation_id else {}), **given}),
        )
        if error:
            span.status.code, span.status.message = 2, error
            span.events.add(name="exception", attributes=attributes({"exception.type": "ValueError", "exception.message": error}))
        return span_id

    def log(self, body: Any, at: float = 0, span: bytes = b"", severity: int = 9, uid: str | None = None, **values: Any) -> None:
        told = {"correlation_id": self.correlation_id, **values}
        if uid != "":
            told["log.record.uid"] = uid or uuid.uuid4().hex
        self._logs.add(
            time_unix_nano=self.begin + int(at * MS),
            severity_number=severity,
            body=any_value(body),
            trace_id=self.trace_id,
            span_id=span,
            attributes=attributes(told),
        )

    @property
    def traces_body(self) -> bytes:
        return self.traces.SerializeToString()

    @property
    def logs_body(self) -> bytes:
        return self.logs.SerializeToString()


@dataclass(frozen=True)
class Sent:
    correlation_id: str
    trace_id: str
    job_id: str
    bodies: list[tuple[str, bytes]]  # path, body


def order(correlation_id: str | None = None, job_id: str = "") -> Sent:
    """A request that enqueues a job, which fails once and is tried again."""
    web = Sender(correlation_id=correlation_id or uuid7())
    worker = Sender(role="worker", trace_id=web.trace_id, correlation_id=web.correlation_id, begin=web.begin)
    job = job_id or str(uuid.uuid4())
    of_job = {
        "messaging.system": "rq",
        "messaging.destination.name": "default",
        "messaging.message.id": job,
        "rq.job.function": "hub.jobs.sync",
    }
    sql = {"db.system.name": "sqlite"}
    root = web.span(
        "POST /orders/", "SERVER", 0, 40, **{"http.request.method": "POST", "http.route": "/orders/", "http.response.status_code": 201}
    )
    for number in range(4):
        web.span("SELECT item", "CLIENT", 1 + number, 0.5, root, **sql, **{"db.query.text": "SELECT * FROM item WHERE id = ?"})
    web.span("INSERT order", "CLIENT", 6, 1, root, **sql, **{"db.query.text": "INSERT INTO orders VALUES (?)"})
    web.span("GET", "CLIENT", 8, 0.2, root, **{"db.system.name": "redis", "db.query.text": "GET rate:1"})
    web.span(
        "GET", "CLIENT", 9, 20, root, **{"http.request.method": "GET", "url.full": "http://api/rate", "http.response.status_code": 200}
    )
    web.log("order 1 received", 30, root)
    producer = web.span("send default", "PRODUCER", 31, 1, root, **of_job)
    for attempt, at, status, error in ((1, 50, "retried", "refused"), (2, 1000, "finished", "")):
        told = {**of_job, "rq.job.attempt": attempt, "rq.job.max_attempts": 3, "rq.job.status": status, "rq.job.queue_wait": 0.018}
        run = worker.span("process default", "CONSUMER", at, 30, producer, error, **told)
        worker.log(f"attempt {attempt} {status}", at + 20, run, 13 if error else 9)
    bodies = [
        ("/v1/traces", web.traces_body),
        ("/v1/logs", web.logs_body),
        ("/v1/traces", worker.traces_body),
        ("/v1/logs", worker.logs_body),
    ]
    return Sent(web.correlation_id, web.trace_id.hex(), job, bodies)


def gauge(name: str, value: float, *, service: str = "hub", when: int | None = None, **labels: str) -> bytes:
    """A metrics request with one gauge."""
    request = ExportMetricsServiceRequest()
    metric = (
        request.resource_metrics.add(resource=Resource(attributes=attributes({"service.name": service})))
        .scope_metrics.add()
        .metrics.add(name=name)
    )
    metric.gauge.data_points.add(as_double=value, time_unix_nano=when or time.time_ns(), attributes=attributes(dict(labels)))
    return request.SerializeToString()


def histogram(name: str, seconds: list[float]) -> bytes:
    """A metrics request with one histogram."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add(resource=resource("hub")).scope_metrics.add().metrics.add(name=name, unit="s")
    metric.histogram.data_points.add(
        time_unix_nano=time.time_ns(), count=len(seconds), sum=sum(seconds), explicit_bounds=[0.1], bucket_counts=[len(seconds), 0]
    )
    return request.SerializeToString()
