"""Medians, percentiles, and how small a difference can be told from none."""

import random
import statistics
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")  # the oldest Python that is supported has no other way
RESAMPLES = 2000


def median(values: Sequence[float]) -> float:
    """The middle."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all lie below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def resolution(differences: Sequence[float]) -> float:
    """How far the median of an A/A comparison of as many rounds lies from zero, in 95 of 100 cases (bootstrap, fixed seed)."""
    chance = random.Random(0)
    medians = [abs(median(chance.choices(differences, k=len(differences)))) for _ in range(RESAMPLES)]
    return percentile(medians, 0.95)


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """Each round begins with another variant, so that drift hits all alike."""
    by %= len(items)
    return [*items[by:], *items[:by]]
