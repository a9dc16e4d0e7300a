"""Outcomes of two runs, test by test; what differs is run three more times on both sides before it counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .known import known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .running import Run, Suite

REPEATS = 3
ABSENT = "absent"


@dataclass
class Difference:
    test: str
    bare: list[str]
    active: list[str]
    detail: str
    verdict: str = ""  # "difference", "did not repeat", "flaky bare", or why it is known

    def line(self) -> str:
        return f"{self.verdict}: {self.test}\n    bare:   {', '.join(self.bare)}\n    active: {', '.join(self.active)}"


@dataclass
class Comparison:
    bare: Run
    active: Run
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def bad(self) -> list[Difference]:
        return [difference for difference in self.differences if difference.verdict == "difference"]

    def summary(self) -> dict[str, Any]:
        return {
            "bare": self.bare.summary(),
            "active": self.active.summary(),
            "bare failures": sorted(test for test, outcome in self.bare.outcomes.items() if "failed" in outcome or "error" in outcome),
            "differences": [vars(difference) for difference in self.differences],
            "problems": self.problems,
            "ok": not (self.bad or self.problems),
        }


def compare(suite: Suite, *, control: bool = False, labels: list[str] | None = None) -> Comparison:
    """`control` runs bare against bare: what it finds is the suite's own noise."""
    bare = suite.run(active=False, labels=labels)
    active = suite.run(active=not control, labels=labels)
    found = Comparison(bare, active, differing(bare, active))
    found.problems = problems(suite.name, bare, active, control=control)
    excused = known(suite.name, suite.settings)
    if any(difference.test not in excused for difference in found.differences) and bare.finished and active.finished:
        _repeat(suite, found, labels, control=control)
    for difference in found.differences:
        difference.verdict = judge(difference, excused)
    return found


def differing(bare: Run, active: Run) -> list[Difference]:
    tests = sorted(bare.outcomes.keys() | active.outcomes.keys())
    pairs = [(test, bare.outcomes.get(test, ABSENT), active.outcomes.get(test, ABSENT)) for test in tests]
    return [Difference(test, [a], [b], active.details.get(test) or bare.details.get(test, "")) for test, a, b in pairs if a != b]


def _repeat(suite: Suite, found: Comparison, labels: list[str] | None, *, control: bool) -> None:
    again = suite.repeat_labels([difference.test for difference in found.differences]) or labels
    for _ in range(REPEATS):
        bare, active = suite.run(active=False, labels=again), suite.run(active=not control, labels=again)
        for difference in found.differences:
            difference.bare.append(bare.outcomes.get(difference.test, ABSENT))
            difference.active.append(active.outcomes.get(difference.test, ABSENT))


def judge(difference: Difference, known: Mapping[str, str]) -> str:
    """What was seen once and in none of three more runs is chance; so is an outcome that the bare suite has as well."""
    reason = known.get(difference.test)
    if reason:
        return f"known ({reason})"
    bare = {
        outcome for outcome in difference.bare if outcome != ABSENT or difference.bare[0] == ABSENT
    }  # a repeat that broke off proves nothing
    if len(difference.active) > 1 and set(difference.active[1:]) <= bare:
        return "flaky bare" if len(bare) > 1 else "did not repeat"
    return "difference"


def problems(suite: str, bare: Run, active: Run, *, control: bool) -> list[str]:
    found = [
        f"the {name} run did not finish:\n{run.output[-3000:]}" for name, run in (("bare", bare), ("active", active)) if not run.finished
    ]
    found += [f"{where} failed, and the guard stopped it:\n{detail}" for where, detail in active.failures.items()]
    if active.lingered and not bare.lingered and bare.outcomes == active.outcomes:
        found.append("the active run stayed after its last test; the bare one left")
    kinds = {"django": ["SERVER"], "rq": ["PRODUCER", "CONSUMER"]}[suite]
    arrived = " ".join(active.received.get("spans", {}))
    missing = [] if control else [kind for kind in kinds if kind not in arrived]
    if missing:
        found.append(
            f"no {' and no '.join(missing)} span arrived: the run was not instrumented, so it proves nothing\n{active.output[:3000]}"
        )
    return found
