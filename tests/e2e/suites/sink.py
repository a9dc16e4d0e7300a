"""A real OTLP/HTTP receiver on loopback that decodes and counts what the instrumented run sends: the proof that it was instrumented."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sink:
    """Counts spans by kind and scope, log records and metric points; keeps log records of our own logger, which tell of inner errors."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.spans: Counter[str] = Counter()
        self.logs = 0
        self.points = 0
        self.garbage = 0
        self.own_words: Counter[str] = Counter()
        self.endpoint = ""

    def summary(self) -> dict[str, Any]:
        with self.lock:
            return {
                "spans": dict(sorted(self.spans.items())),
                "logs": self.logs,
                "metric points": self.points,
                "undecodable": self.garbage,
                "own log records": dict(self.own_words),
            }

    def take(self, path: str, body: bytes) -> None:
        with self.lock:
            try:
                {"/v1/traces": self._traces, "/v1/logs": self._logs, "/v1/metrics": self._metrics}[path](body)
            except Exception:
                self.garbage += 1

    def _traces(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
        from opentelemetry.proto.trace.v1.trace_pb2 import Span

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans[f"{Span.SpanKind.Name(span.kind).removeprefix('SPAN_KIND_')} {scope.scope.name}"] += 1

    def _logs(self, body: bytes) -> None:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for scope in resource.scope_logs:
                self.logs += len(scope.log_records)
                if scope.scope.name.startswith("chegou_otel"):
                    self.own_words.update(record.body.string_value[:200] for record in scope.log_records)

    def _metrics(self, body: bytes) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.points += len(getattr(metric, metric.WhichOneof("data")).data_points)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Suites kill their processes: connections break off."""


@contextlib.contextmanager
def receiving() -> Iterator[Sink]:
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            sink.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    sink.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
