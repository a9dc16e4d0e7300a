"""Four workers, 2,000 jobs, and a collector that is killed and started again amid all of it: everything arrives."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.delivery.receiver import wait_for
from tests.e2e.accounting import Books, Floor, attributes
from tests.e2e.collector import Collector
from tests.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(240)]

JOBS = 2_000
WORKERS = 4
#: At so many jobs the collector goes, and comes back.
OUTAGES = ((300, 700), (1_000, 1_100), (1_400, 1_700))


def test_2000_jobs_by_4_workers_all_arrive_though_the_collector_is_killed_three_times(redis_port, tmp_path):
    collector = Collector(tmp_path, free_port())
    floor = Floor(tmp_path, redis_port, collector.url)
    began = time.monotonic()
    try:
        collector.start()
        for _ in range(JOBS // 200):
            floor.enqueue(*["tiny"] * 200)
        # Metrics are sent every second, so that they meet the outages, too.
        working = time.monotonic()
        workers = [floor.work(burst=True, OTEL_METRIC_EXPORT_INTERVAL="1000") for _ in range(WORKERS)]
        for down, up in OUTAGES:
            wait_jobs(floor, down)
            collector.stop()
            wait_jobs(floor, up)
            collector.start()
        assert [floor.end(worker, 120) for worker in workers] == [0] * WORKERS, floor.said()
        worked = time.monotonic() - working
        floor.close_desk()
        floor.next_process()
        books = Books(floor, *collector.taken())
    finally:
        floor.close()
        collector.stop()
    said = f"twice {books.twice}, ambiguous {books.ambiguous}"
    print(f"\n{JOBS} jobs, {WORKERS} workers: worked {worked:.1f} s, all {time.monotonic() - began:.1f} s, {said}")

    check(books, said)


def wait_jobs(floor, count):
    def done():
        with floor.notes_path.open("rb") as file:
            return file.read().count(b"\n") >= count

    wait_for(done, 120, f"{count} jobs\n{floor.said()}")


def check(books, said):
    assert len(books.notes) == len({note["job"] for note in books.notes}) == JOBS
    wanted = Counter(note["span"] for note in books.notes)
    assert Counter(span.span_id.hex() for span in books.consumers) == wanted
    assert {attributes(span)["rq.job.status"] for span in books.consumers} == {"finished"}
    assert books.inner == Counter(f"inner {note['key']}" for note in books.notes)
    assert sum(span.kind == 4 for span in books.all_spans) == JOBS
    lines = Counter({body: len(found) for body, found in books.logs.items() if " line " in body})
    assert lines == Counter(f"{note['key']} line {number} of tiny" for note in books.notes for number in range(2))
    for note in books.notes:
        (line,) = books.logs[f"{note['key']} line 0 of tiny"]
        assert (line.span_id.hex(), line.trace_id.hex()) == (note["span"], note["trace"])
        assert attributes(line)["correlation_id"] == note["correlation"]
    assert books.totals("floor.ran", "ending") == {("tiny",): JOBS}
    assert books.totals("floor.size", "ending") == {("tiny",): JOBS}
    assert books.totals("rq.job.executions", "rq.job.status") == {("finished",): JOBS}
    assert books.totals("messaging.process.duration", "rq.job.status") == {("finished",): JOBS}
    assert books.totals("messaging.client.sent.messages", "messaging.destination.name") == {("default",): JOBS}
    assert all(books.twice[name] <= books.ambiguous[name] for name in books.twice), said
    assert not [
        line[name]["dropped"] for line in books.ledgers for name in ("traces", "logs", "metrics") if any(line[name]["dropped"].values())
    ]
