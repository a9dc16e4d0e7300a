"""What a browser, `chegou-otel find` and Jaeger's clients ask for."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from chegou_otel.local import page, story
from chegou_otel.local.jaeger_api import JaegerApi
from chegou_otel.local.report import report
from chegou_otel.local.server import Request, Response

if TYPE_CHECKING:
    from chegou_otel.local.server import Application
    from chegou_otel.local.store import Store

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"
LONGEST_ID: Final = 256


class Site:
    """The pages and their data."""

    def __init__(self, store: Store) -> None:
        page.prepare()
        self.store = store
        self.jaeger = JaegerApi(store)
        self._pages: dict[str, Application] = {
            "/": self._home,
            "/find": self._find,
            "/healthz": lambda _: Response(body=b"ok\n"),
            "/api/metrics": self._metrics,
        }

    def answer(self, request: Request) -> Response:
        """Route a request."""
        if request.method not in ("GET", "HEAD"):
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n", headers=(("Allow", "GET, HEAD"),))
        path = request.path
        if page_of := self._pages.get(path):
            return page_of(request)
        if path.startswith("/c/"):
            return self._story(path.removeprefix("/c/"))
        if path.startswith("/api/"):
            status, told = self.jaeger.answer(path, request.query)
            return _json(told, status)
        return _static(path)

    def _home(self, _: Request) -> Response:
        return _html(page.home(self.store.recent()))

    def _find(self, request: Request) -> Response:
        """Where the search box leads."""
        wanted = request.query.get("id", "").strip()[:LONGEST_ID]
        to = story_path(wanted) if wanted else "/"
        return Response(HTTPStatus.SEE_OTHER, headers=(("Location", to), ("Cache-Control", "no-store")))

    def _metrics(self, request: Request) -> Response:
        return _json({"metrics": self.store.metrics(request.query.get("name", ""))})

    def _story(self, name: str) -> Response:
        identifier = unquote(name.removesuffix(".json"))[:LONGEST_ID]
        told = story.build(self.store, identifier)
        if name.endswith(".json"):
            return (
                _json(report(told)) if told else _json({"id": identifier, "error": "nothing is known about this ID"}, HTTPStatus.NOT_FOUND)
            )
        return _html(page.story_page(told)) if told else _html(page.nothing(identifier), HTTPStatus.NOT_FOUND)


def story_path(identifier: str) -> str:
    """The permalink of an ID."""
    return f"/c/{page.quoted(identifier)}"


def _static(path: str) -> Response:
    name = path.removeprefix("/static/")
    if name not in page.STATIC:
        return Response(HTTPStatus.NOT_FOUND, b"nothing here\n")
    return Response(body=page.static(name), media_type=page.STATIC[name], headers=(("Cache-Control", "no-cache"),))


def _html(body: bytes, status: int = HTTPStatus.OK) -> Response:
    return Response(status, body, HTML, page.HEADERS)


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(status, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), JSON, (("Cache-Control", "no-store"),))
