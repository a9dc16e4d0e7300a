"""Real HTTP servers on loopback for the clients' tests: what they receive, and redirects from one name to another."""

from __future__ import annotations

import http.server
import threading


class Origin:
    """Answers by path: ``/ok``, ``/status/<n>``, ``/to/<url>`` (302). Remembers the headers of every request."""

    def __init__(self):
        self.seen = []
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                self.rfile.read(length)
                origin.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                status, extra = 200, {}
                path = self.path.partition("?")[0]
                if path.startswith("/status/"):
                    status = int(path.rpartition("/")[2])
                elif path.startswith("/to/"):
                    status, extra = 302, {"Location": self.path.removeprefix("/to/")}
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_GET = do_POST = do_BREW = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path, host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"

    def headers(self, n=-1):
        return self.seen[n][1]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
