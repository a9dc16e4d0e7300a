"""A collector that is away for ten minutes of traffic, and what a backlog costs in memory.

Time is compressed: the courier's pauses, scans and collections take a twentieth of theirs, and ten minutes of requests come in half a
minute. What one request records, and what lies in the segments, is what ten minutes record.
"""

from __future__ import annotations

import time

import pytest

from tests.delivery.faults import memory, peak_of
from tests.delivery.receiver import wait_for
from tests.e2e.faulty import Service

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.once, pytest.mark.timeout(300)]

COMPRESSION = 20
MINUTES, RATE, PROCESSES = 10, 20, 2
TICK = 0.5
#: Spans with large attributes among a lot of small ones, in memory of whatever kind.
LARGE, GROWTH_KIB = 100_000, 32 * 1024
SPANS = 100_000


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path)
    yield made
    made.close()


def test_ten_minutes_without_a_collector(service):
    """Nothing is lost, what comes twice is among what is called ambiguous, and each process's signals come in their order."""
    processes = [service.start(FAULTY_COMPRESSION=str(COMPRESSION), OTEL_METRIC_EXPORT_INTERVAL="10000") for _ in range(PROCESSES)]
    for process in processes:
        process.go(20)
        process.flush()
    service.socket.begin("answer lost")  # the last that it says nobody hears
    before = len(service.receiver.spans)
    for process in processes:
        process.go(20)
    wait_for(lambda: len(service.receiver.spans) > before, what="something that arrived unanswered")
    service.socket.begin("refuse")

    began, requests = time.monotonic(), 0
    total = MINUTES * 60 * RATE // PROCESSES
    portion = int(RATE * COMPRESSION * TICK) // PROCESSES
    while requests < total:
        for process in processes:
            process.go(portion)
        requests += portion
        time.sleep(max(0.0, began + requests / total * MINUTES * 60 / COMPRESSION - time.monotonic()))
    away = time.monotonic() - began
    used = [process.look()["courier"] for process in processes]
    service.socket.heal()
    back = time.monotonic()
    for process in processes:  # nobody flushes
        process.wait(lambda ledger, of=process: ledger["traces"]["delivered"] == 2 * of.served, "the backlog to arrive", 60)
    caught_up = time.monotonic() - back
    for process in processes:
        process.flush()
        process.end()

    found = service.check()
    assert not any(each["rejected"] or each["dropped"] for each in found.values()), found
    assert found["traces"]["ambiguous"]
    assert in_order(span.name for span, _, _ in service.receiver.spans)
    assert in_order(log.body.string_value for log, _, _ in service.receiver.logs)
    assert counts_rise(service.receiver.metrics)
    said = ", ".join(f"{seconds:.2f}" for seconds in used)
    print(f"\naway {away:.0f} s, caught up in {caught_up:.1f} s, couriers used {said} s of a processor, {found}")


def in_order(names):
    """Whether what arrived first of each process's numbered items is in the order of their numbers."""
    newest, seen = {}, set()
    for name in names:
        if name in seen or name.count(".") != 2:
            continue
        seen.add(name)
        _, process, number = name.split(".")
        if int(number) < newest.get(process, -1):
            return False
        newest[process] = int(number)
    return len(seen) > 2


def counts_rise(metrics):
    """The same of a counter: its value and its time grow."""
    newest = {}
    for metric, _, resource in metrics:
        if metric.name == "shop.served":
            (point,) = metric.sum.data_points
            told = (point.time_unix_nano, point.as_int)
            key = resource.SerializeToString()
            if told < newest.get(key, (0, 0)) or point.as_int < newest.get(key, (0, 0))[1]:
                return False
            newest[key] = told
    return len(newest) == PROCESSES


@pytest.mark.alone
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_backlog_does_not_grow_the_process(service, place):
    """A black hole, and far more than the spool takes: what the process has resident stays within bounds, and the books balance."""
    if place == "memory":
        service.env.update(dict.fromkeys(("CHEGOU_OTEL_SPOOL_DIR", "XDG_STATE_HOME", "TMPDIR"), "/proc/none"))
    process = service.start()
    process.tell(f"spans 20000 {LARGE}")
    process.flush(30)
    before = memory(process.pid)

    service.socket.begin("black hole")
    with peak_of(process.pid) as peak:
        process.tell(f"spans {SPANS} {LARGE}")
    grown = {name: peak[name] - before[name] for name in peak}
    print(f"\n{place}: before {before}, grown by {grown} KiB")
    account = process.look()["ledger"]["traces"]
    assert account["created"] == account["delivered"] + account["held"] + sum(account["dropped"].values()) + account["rejected"]
    assert account["created"] >= SPANS
    assert account["dropped"], "this never filled the spool"
    assert grown["VmRSS"] < GROWTH_KIB
