"""Real servers in this process, so that what is recorded can be read."""

import http.client
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


def until(condition, seconds=10):
    """Wait for a condition, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds} s")
        time.sleep(0.005)
    return found


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Served:
    """A running server, and how its requests are read back."""

    port: int
    kind: str
    telemetry: object = None
    prefix: str = ""
    sent: int = field(default=0)

    def call(self, path, method="GET", headers=None, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, self.prefix + path, body=body, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def spans(self, count=1):
        """The server spans, once there are so many."""
        return until(lambda: (found := [s for s in self.telemetry.spans if s.kind == "SERVER"]) and len(found) >= count and found)

    def span(self, path, method="GET", **options):
        """Make one request and return its server span."""
        self.telemetry.clear()
        self.answer = self.call(path, method, **options)
        (span,) = self.spans()
        return span

    @contextmanager
    def raw(self, path, headers=""):
        """A request over a bare socket, to be left in the middle."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(f"GET {self.prefix}{path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
            yield connection


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@contextmanager
def serving_wsgi(application):
    with make_server("127.0.0.1", 0, application, _Threads, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving_asgi(application, **options):
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=0, log_config=None, lifespan="off", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
