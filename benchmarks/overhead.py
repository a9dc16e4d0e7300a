"""CPU per request and p99: bare, bare again, upstream, ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import environments
from benchmarks.runs import Outcome, RunError, Variant, alone, fill_database, in_turn
from benchmarks.servers import Servers
from benchmarks.stats import median, percentile, resolution
from benchmarks.tables import table

HEAVY_REQUESTS = 500
LIGHT_REQUESTS = 5000
P99_SAMPLES = 500
FEW_ROUNDS = 5
BARE, AGAIN, UPSTREAM, OURS = "bare", "bare again", "upstream", "ours"
DELIVERED = ("spans", "logs", "series")
Results = dict[str, list[Outcome]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much is run, and which variants."""

    rounds: int = 7
    requests: int = HEAVY_REQUESTS
    without: Sequence[str] = ()


def variants(plan: Plan) -> list[Variant]:
    """The four, with their environments."""
    plain = environments.bare()
    found = [
        Variant(BARE, "bare", plain),
        Variant(AGAIN, "bare", plain),
        Variant(UPSTREAM, "upstream", environments.upstream()),
        Variant(OURS, "ours", environments.ours()),
    ]
    return [variant for variant in found if variant.name not in plan.without]


def overhead(servers: Servers, plan: Plan, say: Say) -> dict[str, Any]:
    """Measure, print the tables, and return the numbers."""
    chosen = variants(plan)
    fill_database(chosen[0], servers)
    report: dict[str, Any] = {"versions": {variant.name: variant.environment.versions() for variant in chosen}}
    for load, requests in (("heavy", plan.requests), ("light", plan.requests * LIGHT_REQUESTS // HEAVY_REQUESTS)):
        results = rounds(chosen, servers, plan, say, load, requests)
        check(results, load)
        report[load] = compare(results, "cpu_us")
        print(f"\n{load}: {plan.rounds} rounds of {requests} requests, CPU of the whole process in µs per request\n")
        print_requests(report[load])
    interval_ms = 2 * report["heavy"][BARE]["cpu_us"] / 1000
    report["half load"] = half_load(chosen, servers, plan, say, interval_ms)
    print(f"\nheavy at half load (one request each {interval_ms:.1f} ms), milliseconds from when it was due\n")
    print(table(["variant", "samples", "median", "p99"], [[name, *numbers.values()] for name, numbers in report["half load"].items()]))
    return report


def rounds(
    chosen: Sequence[Variant], servers: Servers, plan: Plan, say: Say, load: str, count: int, script: str = "serve.py", *more: object
) -> Results:
    """All variants in each round, in turn; `count` is what each does in a round."""
    results: Results = {variant.name: [] for variant in chosen}
    for number in range(plan.rounds):
        say(f"{load}, round {number + 1} of {plan.rounds}")
        for name, outcome in in_turn(chosen, servers, count, script, load, *more).items():
            results[name].append(outcome)
    return results


def half_load(chosen: Sequence[Variant], servers: Servers, plan: Plan, say: Say, interval_ms: float) -> dict[str, Any]:
    """Median and p99 of the heavy request. One process at a time: what others send in the background would be seen here."""
    count = max(-(-P99_SAMPLES // plan.rounds), 100)
    samples: dict[str, list[float]] = {variant.name: [] for variant in chosen}
    for number in range(plan.rounds):
        say(f"half load, round {number + 1} of {plan.rounds}")
        for step in range(len(chosen)):
            variant = chosen[(number + step) % len(chosen)]
            samples[variant.name] += alone(variant, servers, count, "serve.py", "paced", interval_ms).told["latencies_ms"]
    return {name: {"samples": len(found), "median": median(found), "p99": percentile(found, 0.99)} for name, found in samples.items()}


def check(results: Results, load: str) -> None:
    """A comparison counts only when ours delivered no less than upstream, with the correlation ID on everything."""
    if OURS not in results:
        return
    for outcome in results[OURS]:
        for kind in ("spans", "logs"):
            if outcome.arrived[f"tagged_{kind}"] != outcome.arrived[kind]:
                missing = outcome.arrived[kind] - outcome.arrived[f"tagged_{kind}"]
                raise RunError(f"{load}: {missing} of {outcome.arrived[kind]} {kind} of ours have no correlation ID")
    for ours, theirs in zip(results[OURS], results.get(UPSTREAM, []), strict=False):
        for kind in DELIVERED:
            mine, other = ours.arrived[kind], theirs.arrived[kind]
            if mine < other:
                raise RunError(f"{load}: ours delivered {mine} {kind}, upstream {other}: no comparison\n{_names(ours, theirs)}")


def _names(ours: Outcome, theirs: Outcome) -> str:
    return "\n".join(
        f"{key} {name}: {outcome.arrived[key]}"
        for name, outcome in (("ours", ours), ("upstream", theirs))
        for key in ("span_names", "series_names")
    )


def compare(results: Results, key: str) -> dict[str, Any]:
    """Per variant the median, its difference from bare of the same round, and that as a share of upstream's."""
    bare = [outcome.told[key] for outcome in results[BARE]]
    again = [outcome.told[key] for outcome in results.get(AGAIN, [])] or bare
    base = [(one + other) / 2 for one, other in zip(bare, again, strict=True)]
    report: dict[str, Any] = {}
    for name, outcomes in results.items():
        reference = bare if name == AGAIN else base
        differences = [outcome.told[key] - start for outcome, start in zip(outcomes, reference, strict=True)]
        report[name] = {
            key: median([outcome.told[key] for outcome in outcomes]),
            "over": None if name == BARE else median(differences),
            "rounds": differences,
            "arrived": {kind: _arrived(outcomes, kind) for kind in (*DELIVERED, "tagged_spans", "tagged_logs", "bytes")},
        }
    report["resolution"] = resolution([other - one for one, other in zip(bare, again, strict=True)])
    for name in (UPSTREAM, OURS):
        if name in report and UPSTREAM in report:
            report[name]["ratio"] = report[name]["over"] / report[UPSTREAM]["over"]
    if "faults" in results[BARE][0].told:
        for name, outcomes in results.items():
            report[name]["faults"] = median([outcome.told["faults"] for outcome in outcomes])
    _split(results, report, key)
    return report


def _arrived(outcomes: Sequence[Outcome], kind: str) -> float:
    """Per request; series are a number of their own."""
    return median([outcome.arrived[kind] if kind == "series" else outcome.per(kind) for outcome in outcomes])


def _split(results: Results, report: dict[str, Any], key: str) -> None:
    """What of the difference is spent on the thread that serves the request; the rest is the background, the last flush included."""
    if "thread_us" not in results[BARE][0].told:
        return
    bare = [outcome.told["thread_us"] for outcome in results[BARE]]
    for name, outcomes in results.items():
        thread = median([outcome.told["thread_us"] - start for outcome, start in zip(outcomes, bare, strict=True)])
        report[name]["thread"] = None if name == BARE else thread
        report[name]["background"] = None if name == BARE else report[name]["over"] - thread


def print_requests(report: dict[str, Any]) -> None:
    """The table of one load."""
    header = ["variant", "CPU µs", "over bare", "x upstream", "request thread", "background", "spans", "logs", "series", "with ID", "bytes"]
    rows = []
    for name, numbers in report.items():
        if name == "resolution":
            continue
        arrived = numbers["arrived"]
        rows.append([
            name, numbers["cpu_us"], numbers["over"], numbers.get("ratio"), numbers["thread"], numbers["background"],
            arrived["spans"], arrived["logs"], round(arrived["series"]), arrived["tagged_spans"] + arrived["tagged_logs"], arrived["bytes"],
        ])  # fmt: skip
    print(table(header, rows))
    few = "" if len(report[BARE]["rounds"]) >= FEW_ROUNDS else " (a guess: too few rounds to tell)"
    print(f"\nA/A resolution: {report['resolution']:.1f} µs{few}; a smaller difference is no difference.")
    print("Spans, logs, those with a correlation ID, and bytes are per request; series are counted once.")
