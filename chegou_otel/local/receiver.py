"""OTLP in, over HTTP and gRPC. A sender is answered after the commit, so what was answered is on the disk."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.local import otlp
from chegou_otel.local.digest import digest
from chegou_otel.local.server import LARGEST_BODY, Request, Response
from chegou_otel.local.writer import Full, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger("chegou_otel.local")

PATHS: Final[Mapping[str, str]] = {f"/v1/{signal}": signal for signal in otlp.REQUESTS}
ANSWER_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1
GRPC_THREADS: Final = 8

_CODES: Final = {
    HTTPStatus.BAD_REQUEST: otlp.INVALID_ARGUMENT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: otlp.RESOURCE_EXHAUSTED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: otlp.INVALID_ARGUMENT,
    HTTPStatus.LENGTH_REQUIRED: otlp.INVALID_ARGUMENT,
    HTTPStatus.METHOD_NOT_ALLOWED: otlp.UNIMPLEMENTED,
    HTTPStatus.NOT_FOUND: otlp.UNIMPLEMENTED,
    HTTPStatus.SERVICE_UNAVAILABLE: otlp.UNAVAILABLE,
}


class Unavailable(Exception):  # noqa: N818 - what the store is
    """Not stored; the sender shall try again."""


def take(writer: Writer, signal: str, body: bytes, media_type: str = otlp.PROTOBUF) -> None:
    """Store a request. Raises otlp.Malformed or Unavailable; returns after the commit."""
    message = otlp.parse(signal, body, media_type)
    try:
        done = writer.submit(digest(signal, message, len(body)))
    except Full as error:
        raise Unavailable("too much is waiting to be written") from error
    try:
        done.result(ANSWER_SECONDS)
    except Exception as error:
        raise Unavailable(f"not stored: {error or type(error).__name__}") from error


# --- HTTP -----------------------------------------------------------------------------------------------------------------------------


def refuse(status: int, message: str, media_type: str) -> Response:
    """A refusal as OTLP wants it: google.rpc.Status in the sender's own format."""
    known = media_type if media_type in (otlp.PROTOBUF, otlp.JSON) else otlp.JSON
    code = _CODES.get(HTTPStatus(status), otlp.INTERNAL)
    headers = (("Retry-After", str(RETRY_SECONDS)),) if status == HTTPStatus.SERVICE_UNAVAILABLE else ()
    return Response(status, otlp.status(code, message, known), known, headers)


def over_http(writer: Writer) -> Callable[[Request], Response]:
    """The application behind /v1/traces, /v1/metrics and /v1/logs."""

    def answer(request: Request) -> Response:
        media_type = request.media_type
        if request.method != "POST":
            refusal = refuse(HTTPStatus.METHOD_NOT_ALLOWED, "OTLP comes by POST", media_type)
            return Response(refusal.status, refusal.body, refusal.media_type, (("Allow", "POST"),))
        if media_type not in (otlp.PROTOBUF, otlp.JSON):
            return refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {otlp.PROTOBUF} or {otlp.JSON}", media_type)
        try:
            take(writer, PATHS[request.path], request.body, media_type)
        except otlp.Malformed as error:
            return refuse(HTTPStatus.BAD_REQUEST, str(error), media_type)
        except Unavailable as error:
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error), media_type)
        return Response(200, otlp.success(media_type), media_type)

    return answer


# --- gRPC -----------------------------------------------------------------------------------------------------------------------------

_SERVICES: Final = {
    otlp.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    otlp.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    otlp.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}


class GrpcServer:
    """OTLP/gRPC. Raises ModuleNotFoundError without grpcio, OSError when the port is taken."""

    def __init__(self, host: str, port: int, writer: Writer) -> None:
        import grpc

        self._writer = writer
        self._server = grpc.server(
            ThreadPoolExecutor(GRPC_THREADS, thread_name_prefix="chegou-otel-grpc"),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", LARGEST_BODY)],
        )
        for signal, service in _SERVICES.items():
            handlers = {"Export": grpc.unary_unary_rpc_method_handler(self._export(signal))}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.host = host
        try:
            self.port: int = self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"port {port} cannot be used: {error}") from error

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def _export(self, signal: str) -> Callable[[bytes, Any], bytes]:
        import grpc

        def export(body: bytes, context: Any) -> bytes:
            try:
                take(self._writer, signal, body)
            except otlp.Malformed as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Unavailable as error:  # the code that OTLP's senders try again after
                context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            return otlp.success(otlp.PROTOBUF)

        return export

    def start(self) -> None:
        """Answer in the background."""
        self._server.start()

    def stop(self, timeout: float) -> None:
        """Take no new call, and wait for the answers that are being made."""
        self._server.stop(timeout).wait(timeout)
