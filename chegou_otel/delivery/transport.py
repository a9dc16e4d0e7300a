"""One OTLP/HTTP request, in protobuf or in JSON."""

from __future__ import annotations

import http.client
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from chegou_otel._version import __version__
from chegou_otel.delivery.answers import Answer, Verdict, judge
from chegou_otel.delivery.sockets import Connection, Unsent
from chegou_otel.delivery.tls import concerns_our_certificate, explain

if TYPE_CHECKING:
    from chegou_otel.delivery.endpoints import Endpoint

#: Measured on batches of spans: level 1 takes half of level 6's time for 3 % more bytes.
GZIP_LEVEL: Final = 1
GZIP_FROM: Final = 1024
ANSWER_MAX: Final = 64 * 1024
USER_AGENT: Final = f"chegou-otel/{__version__}"
NOT_HTTP: Final = "the answer is no HTTP (OTLP/gRPC, perhaps: its usual port is 4317, that of OTLP/HTTP 4318)"


class Transport:
    """Sends bodies to one endpoint over a connection that is shared with the other signals of its route."""

    content_type = "application/x-protobuf"

    def __init__(self, endpoint: Endpoint, connections: dict[Any, Any]) -> None:
        self.endpoint = endpoint
        route = endpoint.route
        key = ("http/1.1", route)
        if key not in connections:
            connections[key] = Connection(route)
        self.connection: Connection = connections[key]
        parts = urlsplit(endpoint.url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers: dict[str, str | bytes] = {
            "content-type": self.content_type,
            "user-agent": USER_AGENT,
            # As bytes, so what they hold beside ASCII is UTF-8.
            **{name: value.encode() for name, value in endpoint.headers.items()},
        }
        if route.proxy and route.scheme == "http":
            self._target = f"http://{route.authority}{self._target}"
            if route.proxy.authorization:
                self._headers["proxy-authorization"] = route.proxy.authorization

    def send(self, body: bytes, deadline: float) -> Answer:
        """Send one body; everything is over at ``deadline`` (monotonic)."""
        return self._post(body, deadline)

    def _post(self, body: bytes | bytearray, deadline: float) -> Answer:
        headers = dict(self._headers)
        if self.endpoint.compression == "gzip" and len(body) >= GZIP_FROM:
            headers["content-encoding"] = "gzip"
            body = gzipped(body)
        connection = self.connection
        answer = Answer(Verdict.AMBIGUOUS, "interrupted")
        try:
            connection.begin(deadline)
            answer = self._exchange(body, headers)
        except Unsent as error:
            answer = Answer(Verdict.UNSENT, str(error))
        except http.client.RemoteDisconnected as error:  # a BadStatusLine by inheritance only
            answer = Answer(Verdict.AMBIGUOUS, f"{type(error).__name__}: {error}")
        except http.client.BadStatusLine:  # what it quotes is binary
            answer = Answer(Verdict.AMBIGUOUS, NOT_HTTP)
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer = failed(error)
        finally:
            if answer.verdict in (Verdict.UNSENT, Verdict.AMBIGUOUS):
                connection.close()
        return answer

    def _exchange(self, body: bytes | bytearray, headers: dict[str, str | bytes]) -> Answer:
        connection = self.connection
        cut = None
        try:
            connection.request("POST", self._target, body, headers)
        except ConnectionError as error:  # a receiver that will not have the whole body has answered already
            cut = error
        try:
            response = connection.getresponse()
        except http.client.BadStatusLine:
            if cut is not None:
                raise cut from None
            raise
        with response:
            content = response.read(ANSWER_MAX + 1)
            if response.will_close or cut is not None or len(content) > ANSWER_MAX:
                connection.close()
            answer = replace(judge(response, content), date=response.headers.get("date", ""))
        if cut is not None and answer.verdict is Verdict.DELIVERED:
            raise cut  # whatever it took, it was not the whole body
        return answer


def gzipped(body: bytes | bytearray) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def failed(error: Exception) -> Answer:
    """What it means that a connection broke after something was sent on it."""
    if concerns_our_certificate(error):
        return Answer(Verdict.UNSENT, explain(error))
    return Answer(Verdict.AMBIGUOUS, f"{type(error).__name__}: {error}")
