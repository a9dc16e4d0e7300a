"""A service that ends over and over while its receiver is away: what it leaves is bounded, the oldest goes first, and is counted."""

from __future__ import annotations

import os
import time

import pytest

from chegou_otel.delivery import orphans
from chegou_otel.delivery.frames import W_TOUCHED, Kind
from chegou_otel.delivery.journal import Journal
from tests.delivery.items import span
from tests.delivery.receiver import wait_for

SEGMENT = 64 * 1024
#: What one process may hold, and what all that are gone may have left: four times that.
MOST = 4 * SEGMENT
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def crash(make, scope):
    """Processes that record one span, and die."""

    def some(count):
        for number in range(count):
            child = os.fork()
            if child == 0:
                recorder = make(NOBODY, segment_bytes=SEGMENT, max_bytes=MOST)
                recorder.append(Kind.SPAN, scope, span(f"life {number:03d}"))
                os._exit(0)
            os.waitpid(child, 0)

    return some


def test_a_crash_loop_does_not_fill_the_disk(make, crash, receiver, scope, spool, caplog):
    """The newest is what is kept."""
    crash(30)
    assert len(list(spool.iterdir())) == 30
    heir = make(NOBODY, segment_bytes=SEGMENT, max_bytes=MOST)
    heir.append(Kind.SPAN, scope, span("heir"))

    wait_for(lambda: len(list(spool.iterdir())) == 17)
    account = heir.ledger()["traces"]
    assert (account.created, account.held, account.dropped) == (31, 17, {"full": 14})
    heir.shutdown(0.1)
    assert "14 traces dropped (full)" in caplog.text

    last = make(receiver.url, segment_bytes=SEGMENT, max_bytes=MOST)
    last.append(Kind.SPAN, scope, span("last"))
    wait_for(lambda: len(receiver.names()) == 17)
    # What the heir left is one more.
    assert set(receiver.names()) == {"last", "heir", *(f"life {number:03d}" for number in range(15, 30))}


def test_a_living_process_is_no_leftover(make, crash, scope, spool):
    """However much the living hold, it is theirs."""
    living = [make(NOBODY, segment_bytes=SEGMENT, max_bytes=MOST) for _ in range(20)]
    for recorder in living:
        recorder.append(Kind.SPAN, scope, span("lives"))
    crash(3)
    heir = make(NOBODY, segment_bytes=SEGMENT, max_bytes=MOST)
    heir.append(Kind.SPAN, scope, span("heir"))
    heir.courier.wake(scan=True)

    wait_for(lambda: sum(recorder.ledger()["traces"].created for recorder in (*living, heir)) == 24)
    assert not any(recorder.ledger()["traces"].dropped for recorder in (*living, heir))


def test_what_is_too_old_is_given_up_and_counted_by_its_age(make, crash, scope, spool, monkeypatch):
    """By when its process was seen last, not by when it is found."""
    crash(2)
    young = make(NOBODY, segment_bytes=SEGMENT, max_bytes=MOST)
    young.pool.max_age = 3600.0
    young.append(Kind.SPAN, scope, span("young"))
    wait_for(lambda: young.ledger()["traces"].created == 3)
    assert not young.ledger()["traces"].dropped
    young.shutdown(0.1)

    now = time.time()
    monkeypatch.setattr(orphans.time, "time", lambda: now + 3700)
    heir = make(NOBODY, segment_bytes=SEGMENT, max_bytes=MOST)
    heir.pool.max_age = 3600.0
    heir.append(Kind.SPAN, scope, span("heir"))
    wait_for(lambda: heir.ledger()["traces"].dropped == {"age": 3})
    wait_for(lambda: len(list(spool.iterdir())) == 1)
    assert heir.ledger()["traces"].held == 1


def test_a_worker_s_journal_is_as_old_as_its_last_collection(make, spool):
    """It is written to for as long as its worker lives, and nobody claims it."""
    recorder = make(NOBODY, segment_bytes=SEGMENT, max_bytes=MOST)
    journal = Journal(recorder)
    before = int(time.time())
    journal.keep()
    (segment,) = (journal._segment,)
    assert segment.longs[W_TOUCHED] >= before

    segment.longs[W_TOUCHED] = 1
    with journal.settling():
        pass
    assert segment.longs[W_TOUCHED] >= before
    journal.close()
