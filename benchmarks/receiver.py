"""A process that takes OTLP/HTTP and counts afterwards what arrived, so that counting costs the measured process nothing.

Each run exports below a path of its own: `/<run>/v1/traces`. `GET /<run>` answers what arrived, and forgets it.
"""

import gzip
import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CORRELATION = "correlation_id"
_REQUESTS: dict[str, Any] = {"traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest}
_bodies: dict[str, list[tuple[str, bytes, bool]]] = defaultdict(list)


class Handler(BaseHTTPRequestHandler):
    """Keeps bodies; decodes them only when asked."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """An export."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        run, _, signal = self.path.strip("/").partition("/v1/")
        _bodies[run].append((signal, body, self.headers.get("Content-Encoding") == "gzip"))
        self._answer(b"", "application/x-protobuf")

    def do_GET(self) -> None:
        """What arrived from a run."""
        self._answer(json.dumps(summary(_bodies.pop(self.path.strip("/"), []))).encode(), "application/json")

    def log_message(self, *_args: Any) -> None:
        """Quiet."""

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def summary(bodies: Iterable[tuple[str, bytes, bool]]) -> dict[str, Any]:
    """Counts of distinct spans, of logs and of metric series, the names of each, and how many carry the correlation ID."""
    spans: dict[bytes, str] = {}
    tagged_spans: set[bytes] = set()
    names: dict[str, int] = defaultdict(int)
    series: set[str] = set()
    logs = tagged_logs = points = wire = exports = corrupt = 0
    for signal, body, zipped in bodies:
        exports += 1
        wire += len(body)
        try:
            request = _REQUESTS[signal].FromString(gzip.decompress(body) if zipped else body)
        except (DecodeError, OSError, EOFError, zlib.error):
            corrupt += 1  # two processes wrote on one connection
            continue
        if signal == "traces":
            for span in _items(request.resource_spans, "scope_spans", "spans"):
                spans[span.span_id] = span.name
                if _tagged(span.attributes):
                    tagged_spans.add(span.span_id)
        elif signal == "logs":
            for record in _items(request.resource_logs, "scope_logs", "log_records"):
                logs += 1
                tagged_logs += _tagged(record.attributes)
        else:
            for metric in _items(request.resource_metrics, "scope_metrics", "metrics"):
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    points += 1
                    series.add(f"{metric.name}{sorted((pair.key, str(pair.value)) for pair in point.attributes)}")
    for name in spans.values():
        names[name] += 1
    return {
        "spans": len(spans), "logs": logs, "series": len(series), "points": points, "bytes": wire, "exports": exports,
        "tagged_spans": len(tagged_spans), "tagged_logs": tagged_logs, "span_names": dict(names), "series_names": sorted(series),
        "corrupt": corrupt,
    }  # fmt: skip


def _items(resources: Iterable[Any], scopes: str, items: str) -> Iterator[Any]:
    for resource in resources:
        for scope in getattr(resource, scopes):
            yield from getattr(scope, items)


def _tagged(attributes: Iterable[Any]) -> bool:
    return any(pair.key == CORRELATION and pair.value.string_value for pair in attributes)


def main() -> None:
    """Listen on a port of the system's choice and say which."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
