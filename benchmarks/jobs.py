"""CPU per job of RQ's forking worker and per enqueue: ours over bare on RQ 3; upstream and ours, each over its own bare, on RQ 2.12."""

from typing import Any

from benchmarks import environments
from benchmarks.overhead import AGAIN, BARE, OURS, UPSTREAM, Plan, Results, Say, compare, rounds
from benchmarks.runs import RunError, Variant, fill_database
from benchmarks.servers import Servers
from benchmarks.tables import table

JOBS_SHARE = 5  # a job costs more than a request
ENQUEUE_SHARE = 4
LOGS_PER_JOB = 2


def rq(servers: Servers, plan: Plan, say: Say) -> dict[str, Any]:
    """Measure, print the tables, and return the numbers."""
    versions = {"RQ 3": newest(), "RQ 2.12": older()}
    fill_database(versions["RQ 3"][0], servers)
    report: dict[str, Any] = {"versions": {}}
    for version, all_variants in versions.items():
        chosen = [variant for variant in all_variants if variant.name not in plan.without]
        report["versions"].update({f"{version} {variant.name}": variant.environment.versions() for variant in chosen})
        jobs, enqueues = plan.requests // JOBS_SHARE, plan.requests * ENQUEUE_SHARE
        report[version] = {
            "worker": _compared(rounds(chosen, servers, plan, say, "worker", jobs, "work.py", jobs)),
            "enqueue": _compared(rounds(chosen, servers, plan, say, "enqueue", enqueues, "work.py", 0)),
        }
    for what, unit, scale in (("worker", "ms", 1000.0), ("enqueue", "µs", 1.0)):
        print(f"\n{what}: CPU in {unit} per job, forked children included\n")
        _print(report, what, unit, scale)
    return report


def newest() -> list[Variant]:
    """Bare and ours on RQ 3."""
    bare = environments.bare()
    return [Variant(BARE, "bare", bare), Variant(AGAIN, "bare", bare), Variant(OURS, "ours", environments.ours())]


def older() -> list[Variant]:
    """Bare, upstream and ours on the newest RQ that upstream's instrumentation runs on."""
    bare, variables = environments.bare_rq2(), {"BENCH_RQ": "1"}
    return [
        Variant(BARE, "bare", bare),
        Variant(AGAIN, "bare", bare),
        Variant(UPSTREAM, "upstream", environments.upstream(), variables),
        Variant(OURS, "ours", environments.ours_rq2()),
    ]


def _compared(results: Results) -> dict[str, Any]:
    _check(results)
    return compare(results, "cpu_us")


def _check(results: Results) -> None:
    """Ours counts only with all three signals of every job, and the correlation ID on them."""
    for outcome in results.get(OURS, ()):
        jobs, names = outcome.told["served"], outcome.arrived["span_names"]
        worked = outcome.told["what"] == "worker"
        wanted = {
            "producer spans": (sum(count for name, count in names.items() if name.startswith("send ")), jobs),
            "consumer spans": (sum(count for name, count in names.items() if name.startswith("process ")), jobs * worked),
            "logs with ID": (outcome.arrived["tagged_logs"], jobs * LOGS_PER_JOB * worked),
            "spans with ID": (outcome.arrived["tagged_spans"], jobs * (1 + worked)),
            "series": (outcome.arrived["series"], 1),
        }
        for what, (found, least) in wanted.items():
            if found < least:
                raise RunError(f"ours delivered {found} {what} of {least}: no comparison\n{names}\n{outcome.arrived['series_names']}")


def _print(report: dict[str, Any], what: str, unit: str, scale: float) -> None:
    rows: list[list[object]] = []
    for version in ("RQ 3", "RQ 2.12"):
        numbers = report[version][what]
        for name, row in numbers.items():
            if name == "resolution":
                continue
            over, arrived = row["over"], row["arrived"]
            rows.append([
                f"{version} {name}", row["cpu_us"] / scale, None if over is None else over / scale, row.get("ratio"), row["faults"],
                arrived["spans"], arrived["logs"], round(arrived["series"]),
            ])  # fmt: skip
        rows.append([f"{version} A/A resolution", None, numbers["resolution"] / scale, *[None] * 5])
    print(table(["variant", f"CPU {unit}", "over bare", "x upstream", "page faults", "spans", "logs", "series"], rows))
