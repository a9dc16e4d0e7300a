"""A collector that accepts and never answers: how much longer a job takes the worker, and how much longer it is between two jobs."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import environments
from benchmarks.overhead import AGAIN, BARE, OURS, Plan, Say
from benchmarks.runs import Variant, fill_database, in_turn
from benchmarks.servers import Servers
from benchmarks.stats import apart, percentile
from benchmarks.tables import table

HANGING = "ours, collector hangs"
JOBS = 600  # p99 needs 500 samples
SHARES = (0.5, 0.99)
#: What a job's time and the gap may grow by, in ms, or the A/A resolution where that is larger.
ALLOWED = (5.0, 50.0)


def hanging(servers: Servers, plan: Plan, say: Say) -> dict[str, Any]:
    """Measure, print the table, and return the numbers."""
    bare, ours = environments.bare(), environments.ours()
    fill_database(Variant(BARE, "bare", bare), servers)
    with _black_hole() as url:
        stuck = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "CHEGOU_OTEL_EXIT_TIMEOUT": "1"}
        variants = [
            Variant(BARE, "bare", bare),
            Variant(AGAIN, "bare", bare),
            Variant(OURS, "ours", ours),
            Variant(HANGING, "ours", ours, stuck),
        ]
        say(f"hanging: {JOBS} jobs by each of {len(variants)} workers in turn")
        told = {name: outcome.told for name, outcome in in_turn(variants, servers, JOBS, "timed.py").items()}
    report = {what: _compared({name: one[what] for name, one in told.items()}) for what in ("jobs", "gaps")}
    for what, title in (("jobs", "a job, as its worker sees it"), ("gaps", "between two jobs")):
        print(f"\nhanging: {title}, in ms ({JOBS} jobs each, in turn)\n")
        rows = [[name, *row["ms"], *(row["over"] or [None] * 2)] for name, row in report[what]["variants"].items()]
        rows.append(["A/A resolution", None, None, *report[what]["resolution"]])
        print(table(["variant", "median", "p99", "median over healthy", "p99 over healthy"], rows))
    return report


def _compared(times: dict[str, Sequence[float]]) -> dict[str, Any]:
    """Each variant's percentiles, ours over ours with a collector that answers."""
    at = {name: [percentile(values, share) * 1e3 for share in SHARES] for name, values in times.items()}
    over = [stuck - well for stuck, well in zip(at[HANGING], at[OURS], strict=True)]
    rows = {name: {"ms": found, "over": over if name == HANGING else None} for name, found in at.items()}
    resolution = [apart(times[BARE], times[AGAIN], share) * 1e3 for share in SHARES]
    within = [grown <= max(allowed, smallest) for grown, allowed, smallest in zip(over, ALLOWED, resolution, strict=True)]
    return {"variants": rows, "resolution": resolution, "within": within}


@contextlib.contextmanager
def _black_hole() -> Iterator[str]:
    """Accepts, reads nothing, answers nothing."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    kept: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                kept.append(listening.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        for connection in (listening, *kept):
            connection.close()
