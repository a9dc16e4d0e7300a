"""The HTTP API that the measured application calls: answers a small JSON document and keeps connections open."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DOCUMENT = b'{"rate": 5.43, "currency": "BRL", "valid": true}'


class Handler(BaseHTTPRequestHandler):
    """One answer for everything."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(DOCUMENT)))
        self.end_headers()
        self.wfile.write(DOCUMENT)

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


def main() -> None:
    """Listen on a port of the system's choice and say which."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
