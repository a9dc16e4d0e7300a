"""What a browser, `chegou-otel find` and Jaeger's clients ask for."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from chegou_otel.local import story
from chegou_otel.local.report import report
from chegou_otel.local.server import Request, Response

if TYPE_CHECKING:
    from chegou_otel.local.store import Store

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"
LONGEST_ID: Final = 256


class Site:
    """The pages and their data."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def answer(self, request: Request) -> Response:
        """Route a request."""
        if request.method not in ("GET", "HEAD"):
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n", headers=(("Allow", "GET, HEAD"),))
        path = request.path
        if path == "/healthz":
            return Response(body=b"ok\n")
        if path.startswith("/c/") and path.endswith(".json"):
            return self._story_json(unquote(path[3:-5]))
        if path == "/api/metrics":
            return as_json({"metrics": self.store.metrics(request.query.get("name", ""))})
        return Response(HTTPStatus.NOT_FOUND, b"nothing here\n")

    def _story_json(self, identifier: str) -> Response:
        told = story.build(self.store, identifier[:LONGEST_ID])
        if told is None:
            return as_json({"id": identifier, "error": "nothing is known about this ID"}, HTTPStatus.NOT_FOUND)
        return as_json(report(told))


def as_json(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), JSON, (("Cache-Control", "no-store"),))


def story_path(identifier: str) -> str:
    """The permalink of an ID."""
    return f"/c/{quote(identifier, safe='')}"
