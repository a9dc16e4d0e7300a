"""Tests whose outcome may differ with the package active, each with its reason. Short by design: a difference is our bug."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER_SETTING = "CHEGOU_OTEL_RESPONSE_HEADER"
_HEADER = "compares the whole set of headers, and X-Correlation-ID is in it"

#: With our response header on, exactly these.
HEADER_SETS = {
    "asgi.tests.ASGITest.test_file_response": _HEADER,
    "asgi.tests.ASGITest.test_get_asgi_application": _HEADER,
    "asgi.tests.ASGITest.test_headers": _HEADER,
    "wsgi.tests.WSGITest.test_get_wsgi_application": _HEADER,
}


def known(suite: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Test → reason, for a run under these environment variables."""
    return HEADER_SETS if suite == "django" and settings.get(HEADER_SETTING) != "" else {}
