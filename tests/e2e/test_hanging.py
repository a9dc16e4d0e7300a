"""A collector that accepts and never answers: neither a job nor the time between two jobs waits for it.

Two workers take turns, one with a collector that is well. `python -m benchmarks hanging` measures what this only bounds.
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import time

import pytest

from tests.delivery.receiver import Receiver, raw_server
from tests.e2e.accounting import Floor

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(240)]

JOBS = 500
PORTION = 25
#: Generous: any wait for an answer would be a multiple of it.
MEDIAN_SECONDS, P99_SECONDS = 0.02, 0.25
EXIT_SECONDS = 2.0


@pytest.fixture
def hanging():
    release, connections = threading.Event(), []

    def talk(connection):
        connections.append(connection)
        release.wait(300)

    with raw_server(talk) as url:
        yield url, connections
        release.set()


class Timed:
    """A worker that says how long each job took."""

    def __init__(self, floor, name, url):
        spool = str(floor.folder / f"spool-{name}")
        env = {"FLOOR_QUEUE": name, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "CHEGOU_OTEL_SPOOL_DIR": spool}
        self.floor = floor
        self.process = floor.start("floor_timed.py", pipes=True, CHEGOU_OTEL_EXIT_TIMEOUT=str(EXIT_SECONDS), **env)
        self.times = {"jobs": [], "gaps": []}

    def go(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.floor.said()
        told = json.loads(line)
        assert len(told["jobs"]) == count
        for what, times in told.items():
            self.times[what] += times

    def end(self):
        began = time.monotonic()
        self.process.stdin.close()
        assert self.floor.end(self.process) == 0, self.floor.said()
        return time.monotonic() - began


def test_no_job_and_no_gap_between_jobs_waits_for_a_collector_that_hangs(redis_port, tmp_path, hanging):
    url, connections = hanging
    receiver = Receiver()
    floor = Floor(tmp_path, redis_port, receiver.url)
    order = random.Random(0)
    try:
        well, stuck = Timed(floor, "well", receiver.url), Timed(floor, "stuck", url)
        for _ in range(JOBS // PORTION):
            for worker in order.sample([well, stuck], 2):
                worker.go(PORTION)
        well.end()
        exit_seconds = stuck.end()
    finally:
        floor.close()
        receiver.close()

    assert connections, "nothing was sent: this proves nothing"
    assert receiver.counts()["process well"] == JOBS
    grown = {what: [growth(well.times[what], stuck.times[what], share) for share in (0.5, 0.99)] for what in ("jobs", "gaps")}
    print("\n" + ", ".join(f"{what}: median {grow[0] * 1e3:+.2f} ms, p99 {grow[1] * 1e3:+.2f} ms" for what, grow in grown.items()))
    assert all(grow[0] < MEDIAN_SECONDS and grow[1] < P99_SECONDS for grow in grown.values()), grown
    assert exit_seconds < EXIT_SECONDS + 5


def growth(well, stuck, share):
    return statistics.quantiles(stuck, n=100)[int(share * 100) - 1] - statistics.quantiles(well, n=100)[int(share * 100) - 1]
