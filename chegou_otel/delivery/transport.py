"""One OTLP/HTTP request, and what its answer means.

Success is a 2xx with an OTLP body: ``application/x-protobuf`` that parses as an export response (or JSON that does, which some
receivers send), or no body at all. Anything else under 2xx, such as a login page, is no receiver of ours: nothing is taken as
delivered. Redirects are refused: they lead to where nobody configured us to send data.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import time
import zlib
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from chegou_otel._version import __version__
from chegou_otel.delivery.protobuf import fields
from chegou_otel.delivery.sockets import Connection, Unsent

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from chegou_otel.delivery.endpoints import Endpoint

#: Measured on batches of spans: level 1 takes half of level 6's time for 3 % more bytes.
GZIP_LEVEL: Final = 1
GZIP_FROM: Final = 1024
ANSWER_MAX: Final = 64 * 1024
RETRY_STATUS: Final = frozenset({429, 502, 503, 504})
RETRY_AFTER_MAX: Final = 300.0
NOT_HTTP: Final = "the answer is no HTTP (OTLP/gRPC, perhaps: its usual port is 4317, that of OTLP/HTTP 4318)"


class Verdict(Enum):
    DELIVERED = "delivered"
    REJECTED = "rejected"  # 400: the receiver will never take this
    TOO_LARGE = "too large"  # 413
    REFUSED = "refused"  # try later: the receiver said so, or said something that only its operator can mend
    UNSENT = "unsent"  # try later: it cannot have arrived
    AMBIGUOUS = "ambiguous"  # try later: it may have arrived


@dataclass(frozen=True, slots=True)
class Answer:
    verdict: Verdict
    reason: str = ""
    rejected: int = 0
    retry_after: float | None = None
    #: The receiver's clock, as its ``Date`` header tells it.
    date: str = ""


class Transport:
    """Sends bodies to one endpoint over a connection that is shared with the other signals of its origin."""

    def __init__(self, endpoint: Endpoint, connections: dict[Any, Connection]) -> None:
        self.endpoint = endpoint
        scheme, host, port = endpoint.origin
        key = (scheme, host, port, endpoint.certificate, endpoint.client_key, endpoint.client_certificate)
        if key not in connections:
            connections[key] = Connection(host, port, _context(endpoint) if scheme == "https" else None)
        self.connection = connections[key]
        parts = urlsplit(endpoint.url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {
            "content-type": "application/x-protobuf",
            "user-agent": f"chegou-otel/{__version__}",
            **endpoint.headers,
        }

    def send(self, body: bytes, deadline: float) -> Answer:
        """Send one body; everything is over at ``deadline`` (monotonic)."""
        headers = dict(self._headers)
        if self.endpoint.compression == "gzip" and len(body) >= GZIP_FROM:
            headers["content-encoding"] = "gzip"
            packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
            body = packer.compress(body) + packer.flush()
        connection = self.connection
        answer = Answer(Verdict.AMBIGUOUS, "interrupted")
        try:
            connection.begin(deadline)
            connection.request("POST", self._target, body, headers)
            with connection.getresponse() as response:
                content = response.read(ANSWER_MAX + 1)
                answer = replace(judge(response, content), date=response.headers.get("date", ""))
                if response.will_close or len(content) > ANSWER_MAX:
                    connection.close()
        except Unsent as error:
            answer = Answer(Verdict.UNSENT, str(error))
        except http.client.RemoteDisconnected as error:  # a BadStatusLine by inheritance only
            answer = Answer(Verdict.AMBIGUOUS, f"{type(error).__name__}: {error}")
        except http.client.BadStatusLine:  # what it quotes is binary
            answer = Answer(Verdict.AMBIGUOUS, NOT_HTTP)
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer = Answer(Verdict.AMBIGUOUS, f"{type(error).__name__}: {error}")
        finally:
            if answer.verdict in (Verdict.UNSENT, Verdict.AMBIGUOUS):
                connection.close()
        return answer


def _context(endpoint: Endpoint) -> Callable[[], ssl.SSLContext]:
    import ssl

    def make() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=endpoint.certificate)
        if endpoint.client_certificate:
            context.load_cert_chain(endpoint.client_certificate, endpoint.client_key)
        return context

    return make


def judge(response: http.client.HTTPResponse, content: bytes) -> Answer:
    status = response.status
    if 200 <= status < 300:  # noqa: PLR2004
        return _success(response.headers.get_content_type() if "content-type" in response.headers else "", content)
    reason = f"HTTP {status} {response.reason}"
    if status == http.HTTPStatus.BAD_REQUEST:
        return Answer(Verdict.REJECTED, f"{reason} {_message(content)}".strip())
    if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Answer(Verdict.TOO_LARGE, reason)
    if status in RETRY_STATUS:
        return Answer(Verdict.REFUSED, reason, retry_after=retry_after(response.headers.get("retry-after")))
    if 300 <= status < 400:  # noqa: PLR2004
        reason += " (redirects are not followed)"
    return Answer(Verdict.REFUSED, reason)


def _success(content_type: str, content: bytes) -> Answer:
    if not content:
        return Answer(Verdict.DELIVERED)
    try:
        if content_type in ("application/x-protobuf", "application/protobuf"):
            rejected, message = partial_success(content)
            return Answer(Verdict.DELIVERED, message, rejected)
        if content_type == "application/json":
            partial = json.loads(content).get("partialSuccess", {})
            rejected = next((int(value) for key, value in partial.items() if key.startswith("rejected")), 0)
            return Answer(Verdict.DELIVERED, str(partial.get("errorMessage", "")), rejected)
    except (ValueError, AttributeError, IndexError, TypeError):
        return Answer(Verdict.AMBIGUOUS, f"the answer is no OTLP ({content_type})")
    return Answer(Verdict.AMBIGUOUS, f"the answer is no OTLP ({content_type or 'no content type'})")


def retry_after(value: str | None) -> float | None:
    """Seconds or a date, as seconds from now."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX) if seconds == seconds else None  # noqa: PLR0124 (not a number)


def _message(content: bytes) -> str:
    """``google.rpc.Status.message``, when the body is one."""
    try:
        return next((value.decode() for number, value in fields(content) if number == 2 and isinstance(value, bytes)), "")[:500]  # noqa: PLR2004
    except (ValueError, IndexError):
        return ""


def partial_success(content: bytes) -> tuple[int, str]:
    """How many items an ``Export*ServiceResponse`` rejects, and why.

    Raises:
        ValueError: it is none.
    """
    rejected, message = 0, ""
    for number, value in fields(content):
        if number != 1 or not isinstance(value, bytes):
            continue
        for inner, what in fields(value):
            if inner == 1 and isinstance(what, int):
                rejected = what
            elif inner == 2 and isinstance(what, bytes):  # noqa: PLR2004
                message = what.decode("utf-8", "replace")[:500]
    return rejected, message
