"""A real OTLP/HTTP receiver with faults on demand. Other parts' tests may use it, too."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager, suppress

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from chegou_otel.local import otlp

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


#: Tests that run at the same time slow each other down. What is to come in time is measured by who asks for that, not here.
PATIENCE = 3 if "PYTEST_XDIST_WORKER" in os.environ else 1


def wait_for(condition, timeout=10.0, what="the condition"):
    """What ``condition`` returns once it is true."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(0.01)


class Answer:
    def __init__(self, status=200, body=b"", content_type=PROTOBUF, headers=(), accept=None, delay=0.0):
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = dict(headers)
        #: Whether what came counts as taken.
        self.accept = status == 200 if accept is None else accept
        self.delay = delay


RESET = "reset"  # take the request, then close without an answer
HANG = "hang"  # take the request and never answer


class Receiver:
    """``plan`` holds what to do with the next requests; after them, ``default`` holds. Both may be callables of the request."""

    def __init__(self, port=0, tls=None):
        self.plan = []
        self.default = Answer()
        self.requests = []
        self.connections = 0
        self.spans, self.logs, self.metrics = [], [], []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                with receiver._lock:
                    receiver.connections += 1

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver._take(self, body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _take(self, handler, body):
        if handler.headers.get("content-encoding") == "gzip":
            body = zlib.decompress(body, 31)
        signal = handler.path.rpartition("/")[2]
        message = self._decode(handler.path, body) if handler.headers["content-type"] != JSON else otlp.parse(signal, body, JSON)
        with self._lock:
            answer = self.plan.pop(0) if self.plan else self.default
            self.requests.append((handler.path, dict(handler.headers), message))
        if callable(answer):
            answer = answer(message)
        if answer == RESET:
            self._keep(message)
            handler.close_connection = True
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            handler.connection.close()
            return
        if answer == HANG:
            self._closing.wait(60)
            handler.close_connection = True
            return
        if answer.delay:
            self._closing.wait(answer.delay)
        if answer.accept:
            self._keep(message)
        handler.send_response(answer.status)
        if answer.content_type:
            handler.send_header("content-type", answer.content_type)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body)

    @staticmethod
    def _decode(path, body):
        kinds = {"traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest}
        return kinds[path.rpartition("/")[2]].FromString(body)

    def _keep(self, message):
        with self._lock:
            if isinstance(message, ExportTraceServiceRequest):
                self.spans += [
                    (span, scope.scope.name, r.resource) for r in message.resource_spans for scope in r.scope_spans for span in scope.spans
                ]
            elif isinstance(message, ExportLogsServiceRequest):
                self.logs += [
                    (log, scope.scope.name, r.resource)
                    for r in message.resource_logs
                    for scope in r.scope_logs
                    for log in scope.log_records
                ]
            else:
                self.metrics += [
                    (m, scope.scope.name, r.resource) for r in message.resource_metrics for scope in r.scope_metrics for m in scope.metrics
                ]

    def names(self):
        """The names of the spans that arrived, in the order of arrival."""
        with self._lock:
            return [span.name for span, _, _ in self.spans]

    def counts(self):
        return Counter(self.names())

    def close(self):
        self._closing.set()
        self.server.shutdown()
        self.server.server_close()


def partial(rejected, message):
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    return Answer(body=response.SerializeToString())


@contextmanager
def raw_server(talk):
    """A TCP server that hands each connection to ``talk(socket)`` on a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def one(connection):
        with connection, suppress(OSError):
            talk(connection)

    def accept():
        while not stopped.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stopped.set()
        # Closing alone would leave the thread in accept().
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
