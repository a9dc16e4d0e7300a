"""The pages: one template each, everything escaped, nothing inline, nothing from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from chegou_otel.local import words
from chegou_otel.local.records import WARNING
from chegou_otel.local.story import Lane, Line, Row, Story
from chegou_otel.local.timeline import Axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chegou_otel.local.records import Span
    from chegou_otel.local.store import Entry

HERE: Final = Path(__file__).resolve().parent
STATIC: Final = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}
SCALE: Final = 1000  # the width of a bar's drawing
TICKS: Final = 4
HIDDEN_LONGEST: Final = 4000  # of one attribute
MOST_LINES: Final = 3000

_POLICY: Final = (
    "default-src 'none'",
    "style-src 'self'",
    "script-src 'self'",
    "img-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)
HEADERS: Final = (
    ("Content-Security-Policy", "; ".join(_POLICY)),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


def quoted(identifier: str) -> str:
    """An ID as the last part of a path. One that ends like the name of the JSON must not be taken for it."""
    text = quote(str(identifier), safe="")
    return f"{text.removesuffix('.json')}%2Ejson" if text.endswith(".json") else text


def prepare() -> None:
    """Fail now, not on the first visit, when jinja2 is missing."""
    _environment()


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"path": quoted, "duration": words.duration, "moment": words.moment}
    return environment


def _render(name: str, **values: Any) -> bytes:
    return bytes(_environment().get_template(name).render(**values).encode("utf-8", "replace"))


def static(name: str) -> bytes:
    """A file of STATIC."""
    return (HERE / "static" / name).read_bytes()


def home(entries: Sequence[Entry]) -> bytes:
    """The search box and what came lately."""
    return _render("home.html", entries=[_entry(entry) for entry in entries], query="")


def nothing(identifier: str) -> bytes:
    """No story, and why that may be."""
    return _render("nothing.html", query=identifier)


def story_page(story: Story) -> bytes:
    """A story."""
    axis = Axis.of(story)
    start = min(lane.start for lane in story.lanes)
    waits = _waits(story, axis)
    lanes = [_lane(lane, axis, start) for lane in story.lanes]
    whole = sum(len(lane["lines"]) for lane in lanes)
    return _render(
        "story.html",
        query=story.identifier,
        story=story,
        mark=words.MARKS[story.verdict.outcome],
        headline=words.headline(story),
        figures=words.figures(story),
        start=words.moment(start),
        lanes=_first_lines(lanes),
        shown=min(MOST_LINES, whole),
        whole=whole,
        ticks=_ticks(axis, start),
        waits=list(waits.values()),
        overview=[_overview(lane, axis, waits) for lane in story.lanes if lane.root],
        gaps=[_bar(axis.at(begin), axis.at(end)) for begin, end in axis.gaps],
    )


def _first_lines(lanes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A browser suffers from more than some thousand lines; errors are not left out before the rest."""
    left = MOST_LINES
    for lane in lanes:
        lines = lane["lines"]
        if len(lines) > left:
            bad = {id(line) for line in [line for line in lines if line["bad"]][:left]}
            room = left - len(bad)
            kept = []
            for line in lines:
                wanted = id(line) in bad
                if wanted or room > 0:
                    kept.append(line)
                    room -= not wanted
            lane["lines"] = kept
        left -= len(lane["lines"])
    return [lane for lane in lanes if lane["lines"]]


# --- lines ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a bar lies on a drawing that is SCALE wide."""

    x: str
    width: str


def _bar(left: float, right: float) -> Bar:
    return Bar(f"{left * SCALE:.2f}", f"{max(2.0, (right - left) * SCALE):.2f}")


def _lane(lane: Lane, axis: Axis, start: int) -> dict[str, Any]:
    lines = [_row(line, axis, start) if isinstance(line, Row) else _log(line, axis, start) for line in lane.lines]
    return {"title": words.lane_title(lane), "lines": lines, "kind": words.category(lane.root) if lane.root else "inner"}


def _row(row: Row, axis: Axis, start: int) -> dict[str, Any]:
    return {
        "log": False,
        "depth": min(row.depth, 24),
        "title": words.title(row),
        "category": words.category(row.span),
        "bad": row.failed,
        "offset": words.duration(max(0, row.start - start) / 1e9),
        "took": words.duration(sum(span.seconds for span in row.spans)),
        "bars": [_bar(axis.at(span.start), axis.at(span.end)) for span in row.spans[:200]],
        "reasons": words.errors(row),
        "details": _details(row.span),
    }


def _details(span: Span) -> list[tuple[str, str]]:
    own = [("name", span.name), ("kind", span.kind), ("status", f"{span.status} {span.status_message}".strip())]
    own += [("span", span.span_id), ("parent", span.parent_id or "none"), ("instrumentation", span.scope)]
    told = [*own, *sorted(span.attributes.items())]
    told += [(f"{event.name}: {key}", value) for event in span.events for key, value in event.attributes.items()]
    return [(str(key), str(value)[:HIDDEN_LONGEST]) for key, value in told]


def _log(line: Line, axis: Axis, start: int) -> dict[str, Any]:
    log = line.log
    place = axis.at(log.time)
    return {
        "log": True,
        "depth": min(line.depth, 24),
        "title": words.log_text(log),
        "level": log.level or "LOG",
        "logger": log.logger,
        "bad": log.failed,
        "category": "error" if log.failed else "warning" if log.severity >= WARNING else "info",
        "offset": words.duration(max(0, log.time - start) / 1e9),
        "bars": [_bar(place, place)],
        "details": [(str(key), str(value)[:HIDDEN_LONGEST]) for key, value in sorted(log.attributes.items())],
    }


# --- the axis -------------------------------------------------------------------------------------------------------------------------


def _ticks(axis: Axis, start: int) -> list[tuple[str, str]]:
    """Some round places, named by the time that they stand for."""
    return [(f"{number * SCALE / TICKS:.0f}", words.duration(max(0, axis.when(number / TICKS) - start) / 1e9)) for number in range(TICKS)]


def _overview(lane: Lane, axis: Axis, waits: dict[str, Any]) -> dict[str, Any]:
    root = lane.root
    return {
        "title": words.span_title(root) if root else "",
        "bar": _bar(axis.at(lane.start), axis.at(lane.end)),
        "category": words.category(root) if root else "inner",
        "bad": bool(root and root.failed),
        "took": words.duration(root.seconds if root else 0),
        "wait": waits.get(root.span_id) if root else None,
    }


def _waits(story: Story, axis: Axis) -> dict[str, Any]:
    """In the queue, hatched: from the enqueue to the first run, and between runs; by the span that waited."""
    waits: dict[str, Any] = {}
    for job in story.jobs:
        ends = [job.producer.end] if job.producer else []
        ends += [span.end for span in job.attempts]
        for end, run in zip(ends, job.attempts[0 if job.producer else 1 :], strict=False):
            if run.start > end:
                took = words.duration((run.start - end) / 1e9)
                waits[run.span_id] = {"bar": _bar(axis.at(end), axis.at(run.start)), "text": f"{words.one_line(job.name)} waited {took}"}
    return waits


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.correlation_id or entry.trace_id,
        "title": words.one_line(f"{entry.name} · {entry.route.rpartition('.')[2]}" if entry.job else entry.name, 90),
        "service": entry.service,
        "kind": {"SERVER": "request", "CONSUMER": "job"}.get(entry.kind, "inner"),
        "code": entry.code or ("error" if entry.error else ""),
        "bad": entry.error,
        "took": words.duration(entry.duration / 1e9),
        "time": words.moment(entry.start),
    }
