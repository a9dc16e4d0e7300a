"""A receiver that fails, in each way that a socket can: what requests, a processor and memory notice of it."""

import contextlib
from typing import Any

from benchmarks import environments
from benchmarks.overhead import OURS, Plan, Say
from benchmarks.runs import Variant, alone, fill_database, in_turn
from benchmarks.servers import Servers
from benchmarks.stats import apart, percentile
from benchmarks.tables import table
from tests.delivery.faults import TALKS, FaultySocket

AGAIN = f"{OURS}, again"
REQUESTS = 1000
SHARES = (0.5, 0.99)
ALLOWED = 0.10  # of the healthy p99, or the A/A resolution where that is larger
IDLE_SECONDS = 60
DEAD = ("refuse", "black hole", "503 for an hour")
SPANS = 1_000_000
KINDS = ("VmRSS", "RssAnon", "RssFile", "RssShmem")


def faults(servers: Servers, plan: Plan, say: Say) -> dict[str, Any]:
    """Measure, print the tables, and return the numbers."""
    ours = environments.ours()
    fill_database(Variant(OURS, "ours", ours), servers)
    with contextlib.ExitStack() as stack:
        variants = {name: _behind(stack, servers, ours, name, fault) for name, fault in _faults().items()}
        say(f"faults: {REQUESTS} requests by each of {len(variants)} processes in turn")
        told = {name: outcome.told for name, outcome in in_turn(list(variants.values()), servers, REQUESTS, "faulty.py", "serve").items()}
        say(f"faults: {IDLE_SECONDS} s of hardly anything to do")
        dead = [variants[name] for name in DEAD]
        idle = {variant.name: alone(variant, servers, IDLE_SECONDS, "faulty.py", "idle").told["courier"] for variant in dead}
        say(f"faults: {SPANS} spans into a black hole")
        backlog = {place: alone(_with(variants["black hole"], place), servers, SPANS, "faulty.py", "backlog").told for place in PLACES}
    return {"requests": _requests(told), "courier": _courier(idle), "memory": _memory(backlog)}


#: Where segments lie.
PLACES: dict[str, dict[str, str]] = {
    "disk": {},
    "memory": dict.fromkeys(("CHEGOU_OTEL_SPOOL_DIR", "XDG_STATE_HOME", "TMPDIR"), "/proc/none"),
}


def _faults() -> dict[str, str | None]:
    """Names of variants, and the fault of each."""
    return {OURS: None, AGAIN: None, **{name: name for name in TALKS}}


def _behind(stack: contextlib.ExitStack, servers: Servers, ours: environments.Environment, name: str, fault: str | None) -> Variant:
    faulty = FaultySocket(servers.receiver_port)
    stack.callback(faulty.close)
    faulty.begin(fault)
    return Variant(name, "ours", ours, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{faulty.url}/faults", "CHEGOU_OTEL_EXIT_TIMEOUT": "0.5"})


def _with(variant: Variant, place: str) -> Variant:
    return Variant(f"{variant.name}, {place}", variant.switch, variant.environment, {**variant.variables, **PLACES[place]})


def _requests(told: dict[str, Any]) -> dict[str, Any]:
    times = {name: one["times"] for name, one in told.items()}
    at = {name: [percentile(values, share) * 1e3 for share in SHARES] for name, values in times.items()}
    resolution = [apart(times[OURS], times[AGAIN], share) * 1e3 for share in SHARES]
    # Both healthy runs together are what a fault is held against.
    healthy = [percentile([*times[OURS], *times[AGAIN]], share) * 1e3 for share in SHARES]
    over = {name: [found - well for found, well in zip(found, healthy, strict=True)] for name, found in at.items()}
    allowed = max(healthy[1] * ALLOWED, resolution[1])
    print(f"\nfaults: a heavy request, in ms ({REQUESTS} each, in turn)\n")
    rows = [[name, *found, *over[name], "yes" if over[name][1] <= allowed else "no"] for name, found in at.items()]
    rows.append(["A/A resolution", None, None, *resolution, None])
    print(table(["fault", "median", "p99", "median over healthy", "p99 over healthy", f"within {allowed:.2f}"], rows))
    return {"ms": at, "over": over, "healthy": healthy, "resolution": resolution, "allowed": allowed}


def _courier(idle: dict[str, float]) -> dict[str, float]:
    print("\nfaults: what the courier uses of a processor, one span a second\n")
    print(table(["fault", "ms a minute"], [[name, seconds * 1e3 * 60 / IDLE_SECONDS] for name, seconds in idle.items()]))
    return idle


def _memory(told: dict[str, Any]) -> dict[str, Any]:
    print(f"\nfaults: {SPANS} spans into a black hole, each thousandth with 100 kB: resident memory over what it was before, in MiB\n")
    rows = []
    for place, one in told.items():
        grown = [(one["peak"][kind] - one["before"][kind]) / 1024 for kind in KINDS]
        rows.append([place, one["before"]["VmRSS"] / 1024, *grown, one["ledger"]["created"], sum(one["ledger"]["dropped"].values())])
    print(table(["segments lie in", "before", *(f"+{kind}" for kind in KINDS), "created", "dropped"], rows))
    return told
