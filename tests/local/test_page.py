"""The pages: complete, and harmless whatever the records say."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from chegou_otel.local.backend import Backend, Options
from chegou_otel.local.story import build
from chegou_otel.local.text import render
from tests.local.programs import ask, get_json, post, send
from tests.local.wires import Sender, gauge, order, uuid7

if TYPE_CHECKING:
    from chegou_otel.local.store import Store

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}\x1b[31m\u202e"


class Page(HTMLParser):
    """What a browser would make of it: elements with attributes, and the text."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(url: str, path: str, expected: int = 200) -> Page:
    status, headers, body = ask(url, "GET", path)
    assert status == expected, body
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    parsed = Page(body)
    harmless(parsed)
    return parsed


def harmless(parsed: Page) -> None:
    """Nothing that the policy would have to stop, and nothing from elsewhere."""
    for tag, attributes in parsed.elements:
        assert tag in KNOWN_TAGS, tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "/").startswith("/"), attributes
        if tag == "script":
            assert attributes["src"] == "/static/page.js"


KNOWN_TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "link",
        "script",
        "body",
        "header",
        "a",
        "svg",
        "path",
        "form",
        "input",
        "kbd",
        "main",
        "h1",
        "table",
        "thead",
        "tr",
        "th",
        "tbody",
        "td",
        "span",
        "section",
        "ul",
        "li",
        "b",
        "p",
        "code",
        "div",
        "rect",
        "defs",
        "pattern",
        "details",
        "summary",
        "dl",
        "dt",
        "dd",
    ]
)


def test_the_whole_story(url: str) -> None:
    sent = send(url, order())
    told = page(url, f"/c/{sent.correlation_id}").text
    for words in (
        "POST /orders/ → 201 in 40.0 ms; job sync failed 1×, finished on attempt 2",
        "recovered",
        "4× SELECT * FROM item WHERE id = ?",
        "INSERT INTO orders",
        "GET rate:1",
        "GET http://api/rate → 200",
        "send default",
        "attempt 1/3 → retried",
        "ValueError: refused",
        "attempt 2/3 → finished",
        "order 1 received",
        "hub (worker)",
        "sync waited",
        sent.correlation_id,
    ):
        assert words in told, words


@pytest.mark.parametrize("by", ["trace_id", "job_id"])
def test_by_other_ids(url: str, by: str) -> None:
    sent = send(url, order())
    assert sent.correlation_id in page(url, f"/c/{getattr(sent, by)}").text


def test_errors_are_marked(url: str) -> None:
    sent = send(url, order())
    elements = page(url, f"/c/{sent.correlation_id}").elements
    bad = [attributes for tag, attributes in elements if tag == "details" and "bad" in (attributes["class"] or "").split()]
    assert len(bad) == 1


@pytest.mark.parametrize("place", ["id", "name", "sql", "attribute", "log", "exception", "service", "job", "level"])
def test_hostile_records_are_only_text(url: str, store: Store, place: str) -> None:
    """In every place that a sender fills: the text is shown, nothing of it is obeyed, neither by a browser nor by a terminal."""
    identifier = HOSTILE if place == "id" else uuid7()
    sender = Sender(correlation_id=identifier, service=HOSTILE if place == "service" else "hub")
    name = HOSTILE if place == "name" else "GET /"
    extra = {"attribute": {HOSTILE: HOSTILE}, "job": {"messaging.message.id": HOSTILE, "rq.job.function": HOSTILE}}.get(place, {})
    root = sender.span(name, "CONSUMER" if place == "job" else "SERVER", error=HOSTILE if place == "exception" else "", **extra)
    sender.span(
        "SELECT", "CLIENT", 0.1, 0.1, root, **{"db.system.name": "sqlite", "db.query.text": HOSTILE if place == "sql" else "SELECT 1"}
    )
    sender.log(HOSTILE if place == "log" else "x", 0.2, root)
    if place == "level":
        sender.logs.resource_logs[0].scope_logs[0].log_records[0].severity_text = HOSTILE
    post(url, "/v1/traces", sender.traces_body)
    post(url, "/v1/logs", sender.logs_body)

    assert "<script>alert(1)</script>" in page(url, f"/c/{quote(identifier, safe='')}").text
    page(url, "/")
    story = build(store, identifier)
    assert story
    plain = render(story, width=4000)
    assert "\x1b" not in plain
    assert "\u202e" not in plain
    assert "<script>" in plain or place == "attribute"


def test_an_unknown_id_is_shown_as_text(url: str) -> None:
    told = page(url, "/c/" + quote(HOSTILE, safe=""), 404)
    assert "Nothing is known about <script>alert(1)</script>" in told.text
    assert HOSTILE in [attributes.get("value") for tag, attributes in told.elements if tag == "input"]


def test_home_lists_what_came_lately(url: str) -> None:
    assert "Nothing has arrived yet" in page(url, "/").text
    sent = send(url, order())
    told = page(url, "/")
    for words in ("POST /orders/", "201", "40.0 ms", "process default · sync", "retried", "finished", sent.correlation_id):
        assert words in told.text
    assert f"/c/{sent.correlation_id}" in [attributes.get("href") for _, attributes in told.elements]


@pytest.mark.parametrize(
    ("wanted", "to"),
    [
        ("abc", "/c/abc"),
        (" abc ", "/c/abc"),
        ("a/b?c#d", "/c/a%2Fb%3Fc%23d"),
        ("", "/"),
        ("//evil.example", "/c/%2F%2Fevil.example"),
        ("a\r\nX: y", "/c/a%0D%0AX%3A%20y"),
    ],
)
def test_the_search_box_leads_to_the_story(url: str, wanted: str, to: str) -> None:
    status, headers, _ = ask(url, "GET", f"/find?id={quote(wanted, safe='')}")
    assert (status, headers["Location"]) == (303, to)
    assert "X" not in headers


def test_an_id_with_strange_characters_finds_its_story(url: str) -> None:
    sent = send(url, order("pedido/7?x=ü#.json"))
    _, headers, _ = ask(url, "GET", "/find?id=" + quote(sent.correlation_id, safe=""))
    assert "POST /orders/" in page(url, headers["Location"]).text


def test_json(url: str) -> None:
    sent = send(url, order())
    status, told = get_json(url, f"/c/{sent.correlation_id}.json")
    assert status == 200
    assert (told["verdict"]["outcome"], len(told["spans"]), len(told["logs"])) == ("recovered", 11, 3)
    assert get_json(url, "/c/nobody.json") == (404, {"id": "nobody", "error": "nothing is known about this ID"})


def test_metrics(url: str) -> None:
    post(url, "/v1/metrics", gauge("queue.depth", 3, queue="default"))
    assert [each["value"] for each in get_json(url, "/api/metrics?name=queue.depth")[1]["metrics"]] == [3.0]
    assert get_json(url, "/api/metrics?name=other")[1] == {"metrics": []}


def test_a_very_long_story_is_cut_and_keeps_its_errors(url: str) -> None:
    sender = Sender()
    root = sender.span("GET /", "SERVER", 0, 5000)
    for number in range(4000):
        sender.span(f"step {number}", at=number, parent=root, error="last words" if number == 3999 else "")
    post(url, "/v1/traces", sender.traces_body)
    told = page(url, f"/c/{sender.correlation_id}").text
    assert "3000 of 4001 lines are shown" in told
    assert "last words" in told


@pytest.mark.parametrize("name", ["page.css", "page.js", "icon.svg"])
def test_static_files(url: str, name: str) -> None:
    status, headers, body = ask(url, "GET", f"/static/{name}")
    assert status == 200
    assert body
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/static/../page.py", "/static/", "/static/%2e%2e/page.py", "/favicon.ico", "/etc/passwd", "/c", "/api/x"]
)
def test_nothing_else_is_served(url: str, path: str) -> None:
    assert ask(url, "GET", path)[0] == 404


def test_head_and_other_methods(url: str) -> None:
    status, headers, body = ask(url, "HEAD", "/")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 100
    assert ask(url, "POST", "/", b"x", {"Content-Type": "text/plain"})[0] == 405


def test_a_page_of_another_name_that_leads_here_gets_nothing(url: str) -> None:
    sent = send(url, order())
    status, _, body = ask(url, "GET", f"/c/{sent.correlation_id}", headers={"Host": "evil.example:4318"})
    assert status == 403
    assert sent.correlation_id.encode() not in body


def test_a_port_of_its_own(tmp_path: object) -> None:
    backend = Backend(Options(tmp_path / "data", http_port=0, ui_port=0))
    backend.start()
    try:
        assert backend.http
        assert backend.ui
        sent = send(backend.http.url, order())
        assert sent.correlation_id in page(backend.ui.url, "/").text
        status, _, body = ask(backend.http.url, "GET", "/")
        assert status == 404
        assert "/v1/traces" in json.loads(body)["message"]
    finally:
        backend.stop()
