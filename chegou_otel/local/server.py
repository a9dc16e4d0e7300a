"""A small HTTP/1.1 server: keep-alive, bounded bodies, one thread per connection."""

from __future__ import annotations

import http.server as stdlib
import logging
import socket
import socketserver
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from chegou_otel._version import __version__

logger = logging.getLogger("chegou_otel.local")

LARGEST_BODY: Final = 64 << 20  # unpacked
IDLE_SECONDS: Final = 75.0


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: Mapping[str, str]
    media_type: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int = 200
    body: bytes = b""
    media_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = field(default=())


Application = Callable[[Request], Response]


class TooLarge(Exception):  # noqa: N818 - what the body is
    """The body exceeds LARGEST_BODY."""


class Unreadable(Exception):  # noqa: N818 - what the body is
    """The body cannot be read or unpacked; the message says why, `status` how to answer."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens at once; answers when `start()` is called."""

    daemon_threads = True
    block_on_close = False  # idle connections are waited for by nobody
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, host: str, port: int, application: Application, refuse: Callable[[int, str, str], Response]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.application = application
        self.refuse = refuse
        self.host = host
        self._active = 0
        self._serving = False
        self._condition = threading.Condition()
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where it listens, for a browser."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def start(self) -> None:
        """Answer in the background."""
        self._serving = True
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="chegou-otel-http", daemon=True).start()

    def stop(self, timeout: float) -> None:
        """Take no new connection, and wait for the answers that are being made."""
        if self._serving:
            self.shutdown()
        self.server_close()
        deadline = time.monotonic() + timeout
        with self._condition:
            while self._active and (left := deadline - time.monotonic()) > 0:
                self._condition.wait(left)

    def answer(self, request: Request) -> Response:
        """The application's answer, whatever it raises."""
        with self._condition:
            self._active += 1
        try:
            return self.application(request)
        except Exception:
            logger.exception("%s %s", request.method, request.path)
            return self.refuse(500, "internal error: the terminal of chegou-otel dev says more", request.media_type)
        finally:
            with self._condition:
                self._active -= 1
                self._condition.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""
        logger.debug("the connection of %s broke: %r", client_address, sys.exc_info()[1])

    def knows(self, host_header: str) -> bool:
        """Whether a Host header means this machine. A page from elsewhere that resolves its own name to 127.0.0.1 must not read this."""
        name = urlsplit(f"//{host_header}").hostname or ""
        if name in ("localhost", self.host) or name.endswith(".localhost") or not host_header:
            return True
        try:
            ip_address(name)
        except ValueError:
            return self.host in ("0.0.0.0", "::")  # noqa: S104 - whoever opened it to the network has names for it
        return True


class _Handler(stdlib.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"chegou-otel/{__version__}"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    server: Server

    def version_string(self) -> str:
        """What the Server header says: nothing of Python."""
        return self.server_version

    def do_GET(self) -> None:
        self._handle(lambda: b"")

    do_HEAD = do_GET  # noqa: N815 - its parent looks for this name

    def do_POST(self) -> None:
        self._handle(self._read_body)

    def _handle(self, read: Callable[[], bytes]) -> None:
        parts = urlsplit(self.path)
        media_type = self.headers.get_content_type() if "Content-Type" in self.headers else ""
        if not self.server.knows(self.headers.get("Host", "")):
            self.close_connection = True
            self._send(self.server.refuse(HTTPStatus.FORBIDDEN, "this Host is not served", media_type))
            return
        try:
            body = read()
        except TooLarge:
            self.close_connection = True  # the rest of the body is still on its way
            reason = f"the body exceeds {LARGEST_BODY} bytes: send smaller batches"
            self._send(self.server.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason, media_type))
        except Unreadable as error:
            self.close_connection = True
            self._send(self.server.refuse(error.status, str(error), media_type))
        else:
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            self._send(self.server.answer(Request(self.command, parts.path, query, media_type, body)))

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.media_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()

    def _read_body(self) -> bytes:
        raw = self._read_chunked() if "chunked" in self.headers.get("Transfer-Encoding", "").lower() else self._read_sized()
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            return raw
        if encoding not in ("gzip", "deflate"):
            raise Unreadable(f"Content-Encoding {encoding!r} is not known here: gzip, deflate", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return unpack(raw)

    def _read_sized(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Unreadable("no usable Content-Length", HTTPStatus.LENGTH_REQUIRED)
        if int(length) > LARGEST_BODY:
            raise TooLarge
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Unreadable("the body ended early")
        return body

    def _read_chunked(self) -> bytes:
        body = bytearray()
        while size := self._chunk_size():
            if len(body) + size > LARGEST_BODY:
                raise TooLarge
            part = self.rfile.read(size)
            body += part
            if len(part) < size or self.rfile.readline(3) not in (b"\r\n", b"\n"):
                raise Unreadable("the body ended early")
        while self.rfile.readline(1 << 16) not in (b"\r\n", b"\n", b""):  # trailers
            pass
        return bytes(body)

    def _chunk_size(self) -> int:
        try:
            return int(self.rfile.readline(1 << 10).partition(b";")[0], 16)
        except ValueError as error:
            raise Unreadable("the body is not chunked as it says") from error

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parent's name for it
        """Requests are not news either."""
        logger.debug(format, *args)


def unpack(raw: bytes) -> bytes:
    """gzip or zlib, up to LARGEST_BODY."""
    worker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        body = worker.decompress(raw, LARGEST_BODY + 1)
    except zlib.error as error:
        raise Unreadable(f"the body cannot be unpacked: {error}") from error
    if len(body) > LARGEST_BODY:
        raise TooLarge
    if not worker.eof:
        raise Unreadable("the packed body ended early")
    return body
