"""OTLP/gRPC: one unary call over HTTP/2, and what its status means. The bodies are ready, so no generated code is needed."""

from __future__ import annotations

import binascii
import time
import zlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from chegou_otel.delivery.answers import MESSAGE_MAX, RETRY_AFTER_MAX, Answer, Verdict, partial_success
from chegou_otel.delivery.frames import Signal
from chegou_otel.delivery.http2 import ANSWER_MAX, Http2Connection, Response, Unprocessed
from chegou_otel.delivery.protobuf import fields
from chegou_otel.delivery.sockets import Unsent
from chegou_otel.delivery.transport import GZIP_FROM, USER_AGENT, failed, gzipped

if TYPE_CHECKING:
    from chegou_otel.delivery.endpoints import Endpoint

_COLLECTOR: Final = "/opentelemetry.proto.collector"
METHODS: Final = {
    Signal.TRACES: f"{_COLLECTOR}.trace.v1.TraceService/Export",
    Signal.LOGS: f"{_COLLECTOR}.logs.v1.LogsService/Export",
    Signal.METRICS: f"{_COLLECTOR}.metrics.v1.MetricsService/Export",
}
CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip
#: Whoever answers so may have taken some of it. All other codes but OK and those in ``_judge`` are refusals: they are tried again.
_UNSURE: Final = frozenset({"CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "DATA_LOSS"})
#: Codes after which the receiver's word on when to come again counts.
_RETRYABLE: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
#: What a receiver says of a message above its limit, among the reasons that share one code.
_TOO_LARGE: Final = ("larger than max", "exceeds maximum", "too large")
#: Headers that belong to the connection, or that are ours to set.
_NOT_OURS: Final = frozenset(
    {"connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}
)
_FRAME: Final = 5


class GrpcTransport:
    """Sends bodies to one endpoint over a connection that is shared with the other signals of its route."""

    def __init__(self, signal: Signal, endpoint: Endpoint, connections: dict[Any, Any]) -> None:
        self.endpoint = endpoint
        route = endpoint.route
        key = ("h2", route)
        if key not in connections:
            connections[key] = Http2Connection(route)
        self.connection: Http2Connection = connections[key]
        self._headers = [
            (":method", "POST"),
            (":scheme", route.scheme),
            (":path", METHODS[signal]),
            (":authority", route.authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", USER_AGENT),
            ("grpc-accept-encoding", "identity,gzip"),
        ]
        self._headers += [
            (name, value)
            for name, value in endpoint.headers.items()
            if name not in _NOT_OURS and not name.startswith((":", "grpc-", "user-agent"))
        ]

    def send(self, body: bytes, deadline: float) -> Answer:
        """Send one body; everything is over at ``deadline`` (monotonic)."""
        headers = self._headers
        packed = b"\0"
        if self.endpoint.compression == "gzip" and len(body) >= GZIP_FROM:
            headers = [*headers, ("grpc-encoding", "gzip")]
            body, packed = gzipped(body), b"\1"
        message = packed + len(body).to_bytes(4) + body
        answer = Answer(Verdict.AMBIGUOUS, "interrupted")
        whole = False
        try:
            response = self._call(headers, message, deadline)
            whole = True
            answer = judge(response)
        except Unsent as error:
            answer = Answer(Verdict.UNSENT, str(error))
        except OSError as error:
            answer = failed(error)
        finally:
            if not whole:
                self.connection.close()
        return answer

    def _call(self, headers: list[tuple[str, str]], message: bytes, deadline: float) -> Response:
        connection = self.connection
        connection.begin(deadline)
        again = connection.used
        try:
            return connection.exchange(_timed(headers, deadline), message)
        except Unprocessed:  # it said goodbye while we began to speak
            if not again:
                raise
        connection.close()
        connection.begin(deadline)
        return connection.exchange(_timed(headers, deadline), message)


def _timed(headers: list[tuple[str, str]], deadline: float) -> list[tuple[str, str]]:
    """With the time after which the receiver need not go on: nobody waits for its answer then."""
    return [*headers, ("grpc-timeout", f"{max(1, int((deadline - time.monotonic()) * 1000))}m")]


def judge(response: Response) -> Answer:
    """What a whole answer means."""
    headers = response.headers
    status, kind = headers.get(":status", ""), headers.get("content-type", "")
    told = response.trailers or headers
    if "grpc-status" not in told:
        return _without_status(status, kind)
    if not told["grpc-status"].isdigit():
        return Answer(Verdict.AMBIGUOUS, "the answer is no gRPC (its status is no number)")
    code = int(told["grpc-status"])
    if code == 0:
        return _success(bytes(response.body), headers.get("grpc-encoding", "identity"))
    name = CODES[code] if code < len(CODES) else "UNKNOWN"
    message = "".join(each if each.isprintable() else " " for each in unquote(told.get("grpc-message", "")))[:MESSAGE_MAX]
    reason = f"gRPC {name} {message}".strip()
    wait = retry_info(told.get("grpc-status-details-bin", ""))
    if name == "INVALID_ARGUMENT":
        return Answer(Verdict.REJECTED, reason)
    if name == "RESOURCE_EXHAUSTED" and wait is None and any(words in message.lower() for words in _TOO_LARGE):
        return Answer(Verdict.TOO_LARGE, reason)
    verdict = Verdict.AMBIGUOUS if name in _UNSURE else Verdict.REFUSED
    return Answer(verdict, reason, retry_after=wait if name in _RETRYABLE else None)


def _without_status(status: str, kind: str) -> Answer:
    """Something between us and the receiver answered, or the end of the answer is missing."""
    if status != "200":
        if status == "413":
            return Answer(Verdict.TOO_LARGE, "HTTP 413")
        note = " (redirects are not followed)" if status.startswith("3") else ""
        return Answer(Verdict.REFUSED, f"HTTP {status}, and no gRPC{note}")
    if kind.partition(";")[0].partition("+")[0].strip() != "application/grpc":
        return Answer(Verdict.AMBIGUOUS, f"the answer is no gRPC ({kind or 'no content type'})")
    return Answer(Verdict.AMBIGUOUS, "the answer ends without a gRPC status")


def _success(body: bytes, encoding: str) -> Answer:
    try:
        rejected, message = partial_success(_message(body, encoding))
    except (ValueError, zlib.error):
        return Answer(Verdict.AMBIGUOUS, "the answer is no OTLP (gRPC OK, and no export response)")
    return Answer(Verdict.DELIVERED, message, rejected)


def _message(body: bytes, encoding: str) -> bytes:
    """The one message in an answer's body."""
    size = int.from_bytes(body[1:_FRAME])
    if len(body) != _FRAME + size or body[0] > 1:
        raise ValueError("not one gRPC message")
    message = body[_FRAME:]
    if not body[0]:
        return message
    if encoding != "gzip":
        raise ValueError("an encoding that nobody offered")
    return zlib.decompressobj(31).decompress(message, ANSWER_MAX)


def retry_info(value: str) -> float | None:
    """The delay of the ``RetryInfo`` in ``grpc-status-details-bin``, in seconds; ``None`` when there is none.

    The header holds a ``google.rpc.Status`` (details: 3), which holds ``Any`` messages (type_url: 1, value: 2); the delay is field 1
    of a RetryInfo, a ``Duration`` of seconds (1) and nanoseconds (2).
    """
    try:
        status = fields(binascii.a2b_base64(value + "=="))
        details = [dict(fields(detail)) for number, detail in status if number == 3 and isinstance(detail, bytes)]  # noqa: PLR2004
        for detail in details:
            url, packed = detail.get(1, b""), detail.get(2, b"")
            if not (isinstance(url, bytes) and isinstance(packed, bytes) and url.endswith(b"/google.rpc.RetryInfo")):
                continue
            delay = dict(fields(packed)).get(1, b"")
            parts = dict(fields(delay)) if isinstance(delay, bytes) else {}
            seconds, nanos = parts.get(1, 0), parts.get(2, 0)
            if isinstance(seconds, int) and isinstance(nanos, int):
                return min(seconds + nanos / 1e9, RETRY_AFTER_MAX) or None
    except (ValueError, binascii.Error):
        pass
    return None
