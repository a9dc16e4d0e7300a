"""One HTTP/2 connection, one request at a time, on a socket whose deadlines are wall-clock.

The package ``h2`` knows the protocol and touches neither sockets nor threads, so a fork has nothing of it to fear. What grpcio
would start instead (threads, descriptors, handlers at each fork) is what this package exists to keep out of forking servers.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.delivery.sockets import DeadlineSocket, Unsent, dial
from chegou_otel.delivery.tls import Contexts, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chegou_otel.delivery.routes import Route

ANSWER_MAX: Final = 64 * 1024
TEND_SECONDS: Final = 0.1
_HEAD: Final = 9
_SETTINGS, _GOAWAY = 4, 7
_FRAME_MAX: Final = 16 * 1024
_REFUSED_STREAM: Final = 7
NOT_HTTP2: Final = "the answer is no HTTP/2 (OTLP/HTTP, perhaps: its usual port is 4318, that of OTLP/gRPC 4317)"


class Unprocessed(Unsent):
    """The receiver says that it did not look at the request; on another connection it may."""


class Reset(OSError):  # noqa: N818 (what the receiver did)
    """The receiver gave the request up."""


@dataclass(slots=True)
class Response:
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] = field(default_factory=dict)
    ended: bool = False


def available() -> bool:
    """Whether ``h2`` is installed; imports what a connection needs, so call it early."""
    try:
        import h2.connection  # noqa: F401
    except ImportError:
        return False
    return True


class Http2Connection:
    """Kept alive between requests, like its sibling for HTTP/1.1."""

    def __init__(self, route: Route) -> None:
        import h2.events as told
        from h2.exceptions import H2Error
        from hpack.exceptions import HPACKError
        from hyperframe.exceptions import HyperframeError

        #: What reading something else than HTTP/2 raises; a header that is no text is a ValueError.
        self._nonsense = (H2Error, HPACKError, HyperframeError, ValueError)
        self._route = route
        self._contexts = Contexts(route, ("h2",))
        self._events: dict[type, Callable[[Any], None]] = {
            told.ResponseReceived: self._on_headers,
            told.TrailersReceived: self._on_trailers,
            told.DataReceived: self._on_data,
            told.StreamEnded: self._on_end,
            told.StreamReset: self._on_reset,
        }
        self.sock: DeadlineSocket | None = None
        #: Whether this connection has served a request before.
        self.used = False
        self._forget()

    def _forget(self) -> None:
        self._h2: Any = None
        self._incoming = bytearray()
        self._settled = False
        self._stream = 0
        self._response = Response()
        #: From the receiver's farewell: the last request that it will still answer.
        self._last: int | None = None

    def tend(self) -> None:
        """Between requests: answer pings, and leave when the receiver says goodbye: it may be waiting for that."""
        self._catch_up(time.monotonic() + TEND_SECONDS)

    def begin(self, deadline: float) -> None:
        """Be connected, with everything up to the answer's last byte bound by ``deadline``.

        Raises:
            Unsent: it cannot be done.
        """
        self._catch_up(deadline)
        if self.sock is not None:
            self.used = True
            return
        self.sock = dial(self._route, self._contexts, deadline, tunnel=True)
        try:
            self._greet()
        except Unsent:
            raise
        except TimeoutError as error:
            raise Unsent("HTTP/2: the receiver's settings took too long") from error
        except OSError as error:
            raise Unsent(explain(error)) from error
        except self._nonsense as error:
            raise Unsent(NOT_HTTP2) from error

    def close(self) -> None:
        """Without a farewell: it would have to wait for room in the socket."""
        if self.sock is not None:
            self.sock.close()
        self.sock = None
        self.used = False
        self._forget()

    def exchange(self, headers: Iterable[tuple[str, str]], body: bytes) -> Response:
        """Send a request on the connection that ``begin`` made, and wait for the whole answer.

        Raises:
            Unsent: the receiver said that it did not look at the request.
            OSError: anything else.
        """
        try:
            return self._exchange(list(headers), body)
        except self._nonsense as error:
            raise OSError(f"the answer is no HTTP/2 ({type(error).__name__})") from error

    def _exchange(self, headers: list[tuple[str, str]], body: bytes) -> Response:
        self._response = Response()
        stream = self._stream = self._h2.get_next_available_stream_id()
        try:
            self._h2.send_headers(stream, headers)
        except self._nonsense as error:
            raise Unsent(f"HTTP/2 does not allow our headers; see OTEL_EXPORTER_OTLP_HEADERS ({type(error).__name__})") from error
        sent, cut = 0, None
        while not self._response.ended:
            if cut is None and sent < len(body):
                try:
                    sent = self._push(body, sent)
                except ConnectionError as error:  # there may be an answer all the same
                    cut = error
            try:
                self._receive()
            except ConnectionError as error:
                raise cut or error from None
        if sent < len(body) and cut is None:
            self._h2.reset_stream(stream, 8)  # CANCEL: what is missing would be for nobody
            self._flush()
        return self._response

    def _push(self, body: bytes, sent: int) -> int:
        """As much of the body as the receiver has room for."""
        room = self._h2.local_flow_control_window(self._stream)
        end = min(len(body), sent + room)
        while sent < end:
            upto = min(end, sent + self._h2.max_outbound_frame_size)
            self._h2.send_data(self._stream, body[sent:upto], end_stream=upto == len(body))
            sent = upto
        self._flush()
        return sent

    def _greet(self) -> None:
        """Until the receiver's settings have come nothing is sent that it could take: what hangs or speaks otherwise is told here."""
        import h2.config
        import h2.connection
        import h2.settings

        self._forget()
        codes = h2.settings.SettingCodes
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.local_settings = h2.settings.Settings(
            client=True, initial_values={codes.ENABLE_PUSH: 0, codes.MAX_FRAME_SIZE: _FRAME_MAX, codes.MAX_HEADER_LIST_SIZE: ANSWER_MAX}
        )
        self._h2.initiate_connection()
        self._flush()
        while not self._settled:
            self._receive()
        if self._last is not None:
            raise Unprocessed("the receiver says goodbye at once")

    def _catch_up(self, deadline: float) -> None:
        """Read what came since the last request, and let go of a connection that is not good for another one."""
        if self.sock is None:
            return
        self.sock.deadline = deadline
        try:
            while data := self.sock.receive_waiting():
                self._take(data)
        except (OSError, *self._nonsense):
            data = b""
        if data is not None or self._last is not None:
            self.close()

    def _flush(self) -> None:
        assert self.sock is not None  # noqa: S101 (for mypy)
        if pending := self._h2.data_to_send():
            self.sock.sendall(pending)

    def _receive(self) -> None:
        assert self.sock is not None  # noqa: S101 (for mypy)
        data = self.sock.receive()
        if not data:
            raise ConnectionResetError("the receiver closed the connection")
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Hand whole frames to ``h2``, except farewells: after one, it would not read the answers that are still to come."""
        incoming = self._incoming
        incoming += data
        while len(incoming) >= _HEAD:
            size, kind = int.from_bytes(incoming[:3]), incoming[3]
            if (not self._settled and kind != _SETTINGS) or size > _FRAME_MAX:
                raise Unsent(NOT_HTTP2) if not self._settled else OSError("the answer is no HTTP/2 (a frame is too long)")
            if len(incoming) < _HEAD + size:
                break
            frame = bytes(incoming[: _HEAD + size])
            del incoming[: _HEAD + size]
            self._settled = True
            if kind == _GOAWAY:
                self._on_farewell(frame[_HEAD:])
                continue
            for event in self._h2.receive_data(frame):
                handle = self._events.get(type(event))
                if handle is not None and event.stream_id == self._stream:
                    handle(event)
        with contextlib.suppress(ConnectionError):  # acknowledgements; what came counts, whoever sent it
            self._flush()

    def _on_farewell(self, payload: bytes) -> None:
        self._last = int.from_bytes(payload[:4]) & 0x7FFF_FFFF
        if self._stream > self._last and not self._response.ended:
            raise Unprocessed("the receiver ended the connection before it looked at the request")

    def _on_headers(self, event: Any) -> None:
        self._response.headers = dict(event.headers)

    def _on_trailers(self, event: Any) -> None:
        self._response.trailers = dict(event.headers)

    def _on_data(self, event: Any) -> None:
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self._response.body += event.data
        if len(self._response.body) > ANSWER_MAX:
            raise OSError("the answer is too long")

    def _on_end(self, _event: Any) -> None:
        self._response.ended = True

    def _on_reset(self, event: Any) -> None:
        if self._response.ended:
            return
        code = int(event.error_code)
        if code == _REFUSED_STREAM:
            raise Unprocessed("the receiver refused the request before it looked at it")
        raise Reset(f"the receiver gave the request up (HTTP/2 error {code})")
