"""The axis of time: work gets the room, long waits are pressed together, so that a retry after minutes fits on the same line."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from chegou_otel.local.story import Story, busy

GAP_WEIGHT: Final = 0.06  # what a pressed gap takes of the room that work has
GAP_LEAST: Final = 0.25  # a gap longer than this part of all work is pressed


@dataclass(frozen=True, slots=True)
class Axis:
    """Points in time and where they lie, between 0 and 1; straight lines between them."""

    times: tuple[int, ...]
    places: tuple[float, ...]
    gaps: tuple[tuple[int, int], ...]  # those that were pressed

    @classmethod
    def of(cls, story: Story) -> Axis:
        """The axis of a story."""
        moments = [(log.time, log.time) for log in story.records.logs]
        first = min([lane.start for lane in story.lanes])
        last = max([lane.end for lane in story.lanes] + [first + 1])
        work = _merge([*busy(story.records.spans), *moments, (first, first), (last, last)])
        active = sum(end - start for start, end in work) or 1
        times, places, gaps = [first], [0.0], []
        for (_, before), (start, end) in zip([(first, first), *work], work, strict=False):
            gap = start - before
            pressed = gap > GAP_LEAST * active
            if pressed:
                gaps.append((before, start))
            if gap:
                times.append(start)
                places.append(places[-1] + (GAP_WEIGHT * active if pressed else gap))
            if end > start:
                times.append(end)
                places.append(places[-1] + (end - start))
        whole = places[-1] or 1.0
        return cls(tuple(times), tuple(place / whole for place in places), tuple(gaps))

    def at(self, time: int) -> float:
        """Where a moment lies, between 0 and 1."""
        index = bisect_right(self.times, time)
        if index == 0:
            return 0.0
        if index == len(self.times):
            return 1.0
        begin, end = self.times[index - 1], self.times[index]
        left, right = self.places[index - 1], self.places[index]
        return left + (right - left) * (time - begin) / (end - begin)

    def when(self, place: float) -> int:
        """The moment that lies there: the opposite of `at`."""
        index = min(max(1, bisect_right(self.places, place)), len(self.places) - 1)
        left, right = self.places[index - 1], self.places[index]
        begin, end = self.times[index - 1], self.times[index]
        return begin + round((end - begin) * (place - left) / (right - left)) if right > left else begin


def _merge(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
