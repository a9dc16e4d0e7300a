"""A story for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chegou_otel.local import words
from chegou_otel.local.records import WARNING, Log
from chegou_otel.local.timeline import Axis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel.local.story import Lane, Row, Story

COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36", "dim": "2", "bold": "1"}
OF_OUTCOME: Final = {"ok": "green", "recovered": "green", "running": "yellow", "failed": "red"}
OF_CATEGORY: Final = {"request": "blue", "job": "magenta", "sql": "cyan", "redis": "yellow", "outbound": "green"}
BAR: Final = 24


class Painter:
    """Colours, or none."""

    def __init__(self, coloured: bool) -> None:
        self.coloured = coloured

    def __call__(self, text: str, *names: str) -> str:
        """The text in these colours."""
        codes = ";".join(COLOURS[name] for name in names if name)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.coloured and codes else text


def render(story: Story, *, width: int = 120, coloured: bool = False) -> str:
    """The whole story, a line each."""
    return "\n".join(_lines(story, max(60, width), Painter(coloured)))


def _lines(story: Story, width: int, paint: Painter) -> Iterator[str]:
    outcome = story.verdict.outcome
    yield paint(f"{words.MARKS[outcome]} {words.headline(story)}", OF_OUTCOME[outcome], "bold")
    yield f"  {outcome} · " + " · ".join(f"{name} {value}" for name, value in words.figures(story))
    start = min(lane.start for lane in story.lanes)
    traces = f"{len(story.traces)} trace{'' if len(story.traces) == 1 else 's'}"
    about = f"{words.moment(start)} UTC · {traces} · {len(story.records.spans)} spans"
    yield paint(f"  correlation ID {words.one_line(story.correlation_id) or 'none'} · {about}", "dim")
    yield from (paint(f"  ! {note}", "yellow") for note in story.notes)
    axis = Axis.of(story)
    for lane in story.lanes:
        yield ""
        yield paint(words.lane_title(lane), "bold")
        yield from _lane(lane, start, width, axis, paint)


def _lane(lane: Lane, start: int, width: int, axis: Axis, paint: Painter) -> Iterator[str]:
    for row in lane.rows:
        bar = _bar(row, axis)
        took = sum(span.seconds for span in row.spans)
        head = f"{_offset(row.start - start)} {words.duration(took):>9} "
        room = width - len(head) - BAR - 3
        text = "  " * row.depth + words.title(row)
        text = f"{text[: room - 1]}…" if len(text) > room else text
        colour = "red" if row.failed else OF_CATEGORY.get(words.category(row.span), "")
        yield f"{head}{paint(f'▕{bar}▏', colour)} {paint(text, 'red' if row.failed else '')}"
        yield from (_under(f"✘ {reason}", row.depth, width, paint, "red") for reason in words.errors(row))
        yield from (_log(log, start, row.depth, width, paint) for log in row.logs)
    yield from (_log(log, start, 0, width, paint) for log in lane.logs)


def _under(text: str, depth: int, width: int, paint: Painter, *colours: str) -> str:
    indent = 21 + BAR + 2 + 2 * depth + 2
    room = max(30, width - indent)
    return " " * indent + paint(words.one_line(text, room), *colours)


def _log(log: Log, start: int, depth: int, width: int, paint: Painter) -> str:
    colour = "red" if log.failed else "yellow" if log.severity >= WARNING else "dim"
    head = _offset(log.time - start)
    text = f"{log.level:<5} {words.one_line(log.logger)}  {words.log_text(log)}"
    gap = 21 + BAR + 2 + 2 * depth + 2 - len(head)
    return head + " " * gap + paint(words.one_line(text, max(40, width - gap - len(head))), colour)


def _offset(nanoseconds: int) -> str:
    """Since the beginning of the story."""
    return f"{words.duration(max(0, nanoseconds) / 1e9):>10}"


def _bar(row: Row, axis: Axis) -> str:
    left, right = axis.at(row.start), axis.at(row.end)
    first = min(BAR - 1, int(left * BAR))
    last = min(BAR, max(first + 1, round(right * BAR)))
    return " " * first + "█" * (last - first) + " " * (BAR - last)
