"""What being there costs: start-up, memory, threads."""

from typing import Any

from benchmarks.overhead import AGAIN, BARE, Plan, Say, rounds, variants
from benchmarks.runs import Outcome, fill_database
from benchmarks.servers import Servers
from benchmarks.stats import median
from benchmarks.tables import table


def footprint(servers: Servers, plan: Plan, say: Say) -> dict[str, Any]:
    """Measure, print the table, and return the numbers."""
    chosen = [variant for variant in variants(plan) if variant.name != AGAIN]
    fill_database(chosen[0], servers)
    results = rounds(chosen, servers, plan, say, "heavy", plan.requests)
    report: dict[str, Any] = {name: _numbers(outcomes) for name, outcomes in results.items()}
    for numbers in report.values():
        for what in ("start-up CPU ms", "RSS MiB at start", "RSS MiB under load"):
            numbers[f"{what} over bare"] = numbers[what] - report[BARE][what]
    print(f"\nfootprint: {plan.rounds} rounds, Django with the variant in it, then {plan.requests} heavy requests\n")
    print(table(["variant", *report[BARE]], [[name, *numbers.values()] for name, numbers in report.items()]))
    return report


def _numbers(outcomes: list[Outcome]) -> dict[str, Any]:
    told = [outcome.told for outcome in outcomes]
    return {
        "import ms": _milliseconds(told, "import"),
        "setup ms": _milliseconds(told, "setup"),
        "start-up CPU ms": median([one["startup"] for one in told]) * 1000,
        "RSS MiB at start": median([one["started"]["rss_mib"] for one in told]),
        "RSS MiB under load": median([one["ended"]["rss_mib"] for one in told]),
        "threads": round(median([one["ended"]["threads"] for one in told])),
    }


def _milliseconds(told: list[dict[str, Any]], what: str) -> float | None:
    """CPU milliseconds of an import or a set-up."""
    values = [one["times"][what][1] for one in told if what in one["times"]]
    return median(values) * 1000 if values else None
