"""Medians, percentiles, and how small a difference can be told from none."""

import random
import statistics
from collections.abc import Sequence

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


def apart(one: Sequence[float], other: Sequence[float], share: float) -> float:
    """How far a percentile of the same lies from that of the same, in 95 of 100 cases (bootstrap, fixed seed)."""
    chance, found = random.Random(0), []
    for _ in range(RESAMPLES // 10):
        drawn = [percentile(chance.choices(values, k=len(values)), share) for values in (one, other)]
        found.append(abs(drawn[0] - drawn[1]))
    return percentile(found, 0.95)
