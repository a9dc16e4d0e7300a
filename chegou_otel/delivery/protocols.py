"""How a signal's bodies travel, by the protocol of its endpoint."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from chegou_otel.delivery import http2, sockets
from chegou_otel.delivery.answers import Answer, Verdict
from chegou_otel.delivery.grpc import GrpcTransport
from chegou_otel.delivery.otlp_json import JsonTransport
from chegou_otel.delivery.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chegou_otel.delivery.endpoints import Endpoint
    from chegou_otel.delivery.frames import Signal

logger = logging.getLogger("chegou_otel")
NO_H2: Final = "OTEL_EXPORTER_OTLP_PROTOCOL=grpc needs the package h2, which is not installed: pip install 'chegou-otel[grpc]'"


class Sender(Protocol):
    """What a lane asks of its protocol."""

    def send(self, body: bytes, deadline: float) -> Answer:
        """Send one body; everything is over at ``deadline`` (monotonic)."""


class Missing:
    """In place of gRPC without ``h2``. Nothing is sent another way: what listens on that address speaks gRPC alone."""

    def send(self, body: bytes, deadline: float) -> Answer:
        return Answer(Verdict.UNSENT, NO_H2)


def _grpc(signal: Signal, endpoint: Endpoint, connections: dict[Any, Any]) -> Sender:
    return GrpcTransport(signal, endpoint, connections) if http2.available() else Missing()


_SENDERS: Final[dict[str, Callable[[Signal, Endpoint, dict[Any, Any]], Sender]]] = {
    "http/protobuf": lambda _signal, endpoint, connections: Transport(endpoint, connections),
    "http/json": JsonTransport,
    "grpc": _grpc,
}


def transport_of(signal: Signal, endpoint: Endpoint, connections: dict[Any, Any]) -> Sender:
    return _SENDERS[endpoint.protocol](signal, endpoint, connections)


def prepare(endpoints: Iterable[Endpoint]) -> None:
    """Import now what sending to these endpoints will need, and say when something is missing."""
    ways = list(endpoints)
    sockets.prepare(way.route for way in ways)
    if any(way.protocol == "grpc" for way in ways) and not http2.available():
        logger.warning("%s; telemetry is kept until a process that has it sends it", NO_H2)
