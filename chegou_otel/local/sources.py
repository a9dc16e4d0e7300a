"""Where `chegou-otel find` asks: the local backend over HTTP, or its data folder."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import quote

from chegou_otel.local.records import Records, from_json

ASK_SECONDS: Final = 10.0
LARGEST_ANSWER: Final = 256 << 20


class Unreachable(Exception):  # noqa: N818 - what the backend is
    """Nobody answers there, or somebody else does; the message says which."""


class NotFound(Exception):  # noqa: N818 - what the answer is
    """The answer is 404."""


def get_json(url: str) -> Any:
    """The JSON at an address. No proxy stands between us and a backend; a redirect is not followed to elsewhere."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - http(s), checked by the caller
    try:
        with opener.open(request, timeout=ASK_SECONDS) as answer:
            return json.loads(answer.read(LARGEST_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:  # noqa: PLR2004
                raise NotFound(error.read(1 << 20).decode(errors="replace")) from error
            raise Unreachable(f"{url} answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise Unreachable(f"{url}: {getattr(error, 'reason', error)}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class LocalBackend:
    """`chegou-otel dev`, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def find(self, identifier: str) -> Records:
        """What the backend knows."""
        try:
            return from_json(get_json(f"{self.url}/c/{quote(identifier, safe='')}.json"))
        except NotFound as answer:
            if "nothing is known" in str(answer):
                return Records()
            raise Unreachable(f"{self.url} is not chegou-otel dev") from answer
        except (KeyError, TypeError, ValueError) as error:
            raise Unreachable(f"{self.url} is not chegou-otel dev") from error


class Detected:
    """An address without saying what stands there: the local backend, or else Jaeger."""

    def __init__(self, url: str) -> None:
        self.url = url

    def find(self, identifier: str) -> Records:
        """What it knows, whichever it is."""
        from chegou_otel.local.jaeger_source import Jaeger

        try:
            return LocalBackend(self.url).find(identifier)
        except Unreachable as first:
            try:
                return Jaeger(self.url).find(identifier)
            except Unreachable as second:
                raise first if "not chegou-otel dev" not in str(first) else second from second
