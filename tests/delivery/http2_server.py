"""HTTP/2 servers whose every frame the test decides, and a real gRPC server that keeps what it takes."""

from __future__ import annotations

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import h2.config
import h2.connection
import h2.events

from chegou_otel.delivery.frames import Signal
from chegou_otel.delivery.grpc import METHODS
from tests.delivery.receiver import Receiver, raw_server

TAKEN = b"\0\0\0\0\0"  # an empty export response


class Talk:
    """The server's side of one connection."""

    def __init__(self, sock):
        self.sock = sock
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._heads, self._bodies = {}, {}
        #: Streams that the client gave up.
        self.given_up = []

    def greet(self):
        self.h2.initiate_connection()
        self.flush()
        return self

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def request(self, whole=True, room=True):
        """The next request: its stream, headers and body; with ``whole=False`` as soon as its headers are there. None: it hung up."""
        while True:
            data = self.sock.recv(65536)
            if not data:
                return None
            ready = None
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self._heads[event.stream_id], self._bodies[event.stream_id] = dict(event.headers), bytearray()
                    ready = ready if whole else event.stream_id
                elif isinstance(event, h2.events.DataReceived):
                    if room:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    self._bodies[event.stream_id] += event.data
                elif isinstance(event, h2.events.StreamReset):
                    self.given_up.append(event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ready = event.stream_id
            self.flush()
            if ready is not None:
                return ready, self._heads[ready], bytes(self._bodies[ready])

    def answer(self, stream, *, body=TAKEN, status="0", http="200", kind="application/grpc", headers=(), trailers=()):
        """A whole answer; ``status=None``: without trailers."""
        self.h2.send_headers(stream, [(":status", http), *([("content-type", kind)] if kind else []), *headers])
        if body:
            self.h2.send_data(stream, body, end_stream=status is None)
        elif status is None:
            self.h2.end_stream(stream)
        if status is not None:
            self.h2.send_headers(stream, [("grpc-status", status), *trailers], end_stream=True)
        self.flush()

    def farewell(self, last, code=0):
        """GOAWAY, written by hand: ``h2`` would say no more after it."""
        self.sock.sendall(b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4) + code.to_bytes(4))


@contextmanager
def h2_server(talk, tls=None):
    """Hands each connection to ``talk(Talk)``; yields the address."""

    def one(sock):
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True)
        talk(Talk(sock))

    with raw_server(one) as url:
        yield url.replace("http:", "https:") if tls else url


def serve(**answer):
    """Answers every request the same."""

    def talk(connection):
        connection.greet()
        while asked := connection.request():
            connection.answer(asked[0], **answer)

    return talk


class GrpcReceiver:
    """A real gRPC server. ``plan`` holds callables of the context for the next calls, whose bytes are the answer; ``judge`` sees all."""

    def __init__(self, credentials=None, port=0, **options):
        import grpc

        self.plan = []
        self.judge = lambda message, context: None
        self.calls = []
        self._lock = threading.Lock()
        self.spans, self.logs, self.metrics = [], [], []
        self.server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0), *options.items()])
        for signal in Signal:
            service, method = METHODS[signal][1:].split("/")
            handlers = {method: grpc.unary_unary_rpc_method_handler(self._taker(signal))}
            self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        add = self.server.add_insecure_port if credentials is None else lambda at: self.server.add_secure_port(at, credentials)
        self.port = add(f"127.0.0.1:{port}")
        self.url = f"{'https' if credentials else 'http'}://127.0.0.1:{self.port}"
        self.server.start()

    def _taker(self, signal):
        def take(body, context):
            with self._lock:
                self.calls.append((signal, context.peer(), dict(context.invocation_metadata()), len(body)))
                act = self.plan.pop(0) if self.plan else None
            answer = act(context) if act else b""
            message = Receiver._decode(f"/v1/{signal.name.lower()}", body)
            self.judge(message, context)
            Receiver._keep(self, message)
            return answer

        return take

    def names(self):
        with self._lock:
            return [span.name for span, _, _ in self.spans]

    def close(self):
        self.server.stop(0).wait(5)


def unpacked(message):
    """The export request in a gRPC message."""
    assert int.from_bytes(message[1:5]) == len(message) - 5
    return zlib.decompress(message[5:], 31) if message[0] else message[5:]
