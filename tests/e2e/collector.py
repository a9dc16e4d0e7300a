"""A collector as a process that may be killed: what it takes is on its disk before it answers. ``collector.py PORT FILE``."""

from __future__ import annotations

import http.server
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

HEAD = struct.Struct("<II")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = zlib.decompress(body, 31)
        path = self.path.encode()
        os.write(FILE, HEAD.pack(len(path), len(body)) + path + body)
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


class Collector:
    """Stopped and started again on one port, with one file."""

    def __init__(self, folder, port):
        self.path = folder / "taken"
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.process = None

    def start(self):
        self.process = subprocess.Popen([sys.executable, __file__, str(self.port), str(self.path)])
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "the collector did not start"
                time.sleep(0.02)

    def stop(self):
        """At once, amid whatever it answers."""
        self.process.kill()
        self.process.wait()

    def taken(self):
        """Spans, logs and metrics with their scopes' names and resources."""
        from tests.delivery.receiver import Receiver

        kept = type("Kept", (), {"_lock": __import__("threading").Lock(), "spans": [], "logs": [], "metrics": []})()
        data, at = Path(self.path).read_bytes(), 0
        while at + HEAD.size <= len(data):
            path, body = HEAD.unpack_from(data, at)
            start = at + HEAD.size + path
            if start + body > len(data):
                break  # it was killed while it wrote
            Receiver._keep(kept, Receiver._decode(data[at + HEAD.size : start].decode(), data[start : start + body]))
            at = start + body
        return kept.spans, kept.logs, kept.metrics


if __name__ == "__main__":
    FILE = os.open(sys.argv[2], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
