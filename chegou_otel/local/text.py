"""A story for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chegou_otel.local import words
from chegou_otel.local.records import WARNING
from chegou_otel.local.story import Row
from chegou_otel.local.timeline import Axis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel.local.story import Lane, Line, Story

COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36", "dim": "2", "bold": "1"}
OF_OUTCOME: Final = {"ok": "green", "recovered": "green", "running": "yellow", "failed": "red"}
OF_CATEGORY: Final = {"request": "blue", "job": "magenta", "sql": "cyan", "redis": "yellow", "outbound": "green"}
BAR: Final = 24
TEXT: Final = 21 + 1 + BAR + 1 + 1  # where the text begins: after offset, duration and bar


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
    for line in lane.lines:
        if isinstance(line, Row):
            yield from _row(line, start, width, axis, paint)
        else:
            yield _log(line, start, width, paint)


def _row(row: Row, start: int, width: int, axis: Axis, paint: Painter) -> Iterator[str]:
    head = f"{_offset(row.start - start)} {words.duration(sum(span.seconds for span in row.spans)):>9} "
    colour = "red" if row.failed else OF_CATEGORY.get(words.category(row.span), "")
    indent = "  " * row.depth
    text = words.one_line(words.title(row), max(30, width - TEXT - len(indent)))
    yield f"{head}{paint(f'▕{_bar(row, axis)}▏', colour)} {indent}{paint(text, 'red' if row.failed else '')}"
    for reason in words.errors(row):
        yield " " * TEXT + indent + "  " + paint(words.one_line(f"✘ {reason}", max(30, width - TEXT - len(indent) - 2)), "red")


def _log(line: Line, start: int, width: int, paint: Painter) -> str:
    log = line.log
    colour = "red" if log.failed else "yellow" if log.severity >= WARNING else "dim"
    head = _offset(log.time - start)
    indent = " " * (TEXT - len(head)) + "  " * line.depth
    text = f"{log.level} {words.one_line(log.logger)}: {words.log_text(log)}"
    return head + indent + paint(words.one_line(text, max(30, width - len(head) - len(indent))), colour)


def _offset(nanoseconds: int) -> str:
    """Since the beginning of the story."""
    return f"{words.duration(max(0, nanoseconds) / 1e9):>10}"


def _bar(row: Row, axis: Axis) -> str:
    left, right = axis.at(row.start), axis.at(row.end)
    first = min(BAR - 1, int(left * BAR))
    last = min(BAR, max(first + 1, round(right * BAR)))
    return " " * first + "█" * (last - first) + " " * (BAR - last)
