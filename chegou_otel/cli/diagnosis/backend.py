"""Did it arrive? Whoever keeps the story is asked for it: the local backend, Jaeger, or what CHEGOU_OTEL_QUERY_URL names."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from chegou_otel.cli.find import JAEGER, LOCAL, QUERY_URL
from chegou_otel.local.jaeger_source import Jaeger
from chegou_otel.local.sources import Detected, LocalBackend, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel.local.records import Records
    from chegou_otel.local.story import Source

_PAUSE: Final = 0.2
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def confirm(facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Where the story was found, and which trials are in it. Nobody to ask: ``where`` is empty."""
    found: dict[str, Any] = {"where": "", "seen": {}, "command": ""}
    if seconds > 0 and facts.get("correlation_id") and any(each["delivered"] for each in facts.get("contacts", {}).values()):
        # A thread: each question has its own time-out, and they are longer than what is left.
        asking = threading.Thread(target=_ask_all, args=(facts, time.monotonic() + seconds, found), daemon=True)
        asking.start()
        asking.join(seconds)
    return dict(found)


class _Asked(NamedTuple):
    """Whom to ask, how `chegou-otel find` is told to ask there, and whether the story has to be there."""

    source: Source
    option: str
    expected: bool = True


def _ask_all(facts: dict[str, Any], deadline: float, found: dict[str, Any]) -> None:
    asked = dict(_sources(facts))
    while asked and time.monotonic() < deadline and not all(found["seen"].values() or [False]):
        for name, each in tuple(asked.items()):
            try:
                records = each.source.find(facts["correlation_id"])
            except Unreachable:
                del asked[name]
                continue
            if records or (each.expected and not found["where"]):
                found.update(
                    where=name, seen=_seen(records, facts["tried"]), command=f"chegou-otel find {facts['correlation_id']}{each.option}"
                )
                break
        time.sleep(_PAUSE)


def _sources(facts: dict[str, Any]) -> Iterator[tuple[str, _Asked]]:
    """By name."""
    if url := os.environ.get(QUERY_URL, "").strip():
        yield url, _Asked(Detected(url), "")
        return
    origins = {urlsplit(each["endpoint"])._replace(path="").geturl() for each in facts["wired"]["signals"].values() if each["endpoint"]}
    for url in sorted(origins):
        yield f"chegou-otel dev at {url}", _Asked(LocalBackend(url), f" --url {url}")
        if urlsplit(url).hostname in _LOOPBACK:  # behind a collector on this machine, perhaps
            yield f"chegou-otel dev at {LOCAL}", _Asked(LocalBackend(LOCAL), "", expected=False)
            yield f"Jaeger at {JAEGER}", _Asked(Jaeger(JAEGER), f" --jaeger {JAEGER}", expected=False)


def _seen(records: Records, tried: dict[str, Any]) -> dict[str, bool]:
    """Of what was recorded, which is there."""
    kinds = {span.kind for span in records.spans}
    seen = {"request": "SERVER" in kinds, "job": "CONSUMER" in kinds}
    if records.logs or not records.partial:  # who keeps no logs says so
        seen["log line"] = bool(records.logs)
    return {name: there for name, there in seen.items() if tried[name]["recorded"]}
