"""What the answer to an export means. ``grpc`` has a page of its own: its status codes are not HTTP's.

Success is a 2xx with an OTLP body: ``application/x-protobuf`` that parses as an export response (or JSON that does, which some
receivers send), or no body at all. Anything else under 2xx, such as a login page, is no receiver of ours: nothing is taken as
delivered. Redirects are refused: they lead to where nobody configured us to send data.
"""

from __future__ import annotations

import email.utils
import http
import json
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.delivery.protobuf import fields

if TYPE_CHECKING:
    from http.client import HTTPResponse

RETRY_STATUS: Final = frozenset({429, 502, 503, 504})
RETRY_AFTER_MAX: Final = 300.0
PROTOBUF: Final = frozenset({"application/x-protobuf", "application/protobuf"})
JSON: Final = "application/json"
MESSAGE_MAX: Final = 500


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


def judge(response: HTTPResponse, content: bytes) -> Answer:
    status = response.status
    kind = response.headers.get_content_type() if "content-type" in response.headers else ""
    if 200 <= status < 300:  # noqa: PLR2004
        return _success(kind, content)
    reason = f"HTTP {status} {response.reason}"
    if status == http.HTTPStatus.BAD_REQUEST:
        return Answer(Verdict.REJECTED, f"{reason} {_message(kind, content)}".strip())
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
        if content_type in PROTOBUF:
            rejected, message = partial_success(content)
            return Answer(Verdict.DELIVERED, message, rejected)
        if content_type == JSON:
            rejected, message = partial_success_json(content)
            return Answer(Verdict.DELIVERED, message, rejected)
    except (ValueError, RecursionError):
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


def _message(content_type: str, content: bytes) -> str:
    """``google.rpc.Status.message``, when the body is one."""
    try:
        if content_type == JSON:
            told = json.loads(content)
            return str(told.get("message", ""))[:MESSAGE_MAX] if isinstance(told, dict) else ""
        return next((value.decode() for number, value in fields(content) if number == 2 and isinstance(value, bytes)), "")[:MESSAGE_MAX]  # noqa: PLR2004
    except (ValueError, IndexError, RecursionError):
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
                message = what.decode("utf-8", "replace")[:MESSAGE_MAX]
    return rejected, message


def partial_success_json(content: bytes) -> tuple[int, str]:
    """The same of an answer in JSON. What the specification does not know is passed over, what it knows must have its type.

    Raises:
        ValueError: it is none.
    """
    partial = _object(_object(json.loads(content)).get("partialSuccess"))
    message = partial.get("errorMessage") or ""
    if not isinstance(message, str):
        raise ValueError("errorMessage is no text")  # noqa: TRY004 (what the caller expects of all that is wrong)
    counts = [_count(value) for key, value in partial.items() if key in ("rejectedSpans", "rejectedLogRecords", "rejectedDataPoints")]
    return max(counts, default=0), message[:MESSAGE_MAX]


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("no object")  # noqa: TRY004
    return value


def _count(value: Any) -> int:
    """An int64: JSON has it as text, and senders that do not know have it as a number."""
    if value is None:
        return 0
    if type(value) is int or (isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit()):
        return int(value)
    raise ValueError("no whole number")
