"""A worker is killed while its work-horse lives on, alone or with it, or runs the job again beside it: every execution is told once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import psutil
import pytest
import rq

from tests.delivery.receiver import Receiver, wait_for
from tests.e2e.accounting import Books, Floor, attributes

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(120)]

BEFORE = 3


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def floor(redis_port, tmp_path, receiver):
    made = Floor(tmp_path, redis_port, receiver.url)
    made.receiver = receiver
    yield made
    made.close()


def closed(floor):
    """The books, after whoever comes next took over what lay there."""
    floor.close_desk()
    floor.next_process()
    return Books(floor, floor.receiver.spans, floor.receiver.logs, floor.receiver.metrics)


def kill(process):
    process.kill()
    process.wait()


def check(books, statuses, said):
    """Each execution told once, with its lines, and every number is the number of executions."""
    told = {note["key"]: [attributes(span)["rq.job.status"] for span in books.spans.get(note["span"], [])] for note in books.notes}
    assert all(len(each) == 1 for each in told.values()), (told, said)
    assert sorted(span.span_id.hex() for span in books.consumers) == sorted(note["span"] for note in books.notes)
    assert Counter(status for each in told.values() for status in each) == statuses
    for note in books.notes:
        (span,) = books.spans[note["span"]]
        assert (attributes(span)["floor.key"], attributes(span)["correlation_id"]) == (note["key"], note["correlation"])
        for number in range(2):
            (line,) = books.logs[f"{note['key']} line {number} of {note['ending']}"]
            assert line.span_id.hex() == note["span"]
        assert books.inner[f"inner {note['key']}"] == 1
    assert all(books.twice[name] <= books.ambiguous[name] for name in books.twice), (books.twice, books.ambiguous)
    ran = Counter(note["ending"] for note in books.notes)
    assert {key[0]: count for key, count in books.totals("floor.ran", "ending").items()} == ran, said
    assert {key[0]: count for key, count in books.totals("floor.size", "ending").items()} == ran
    assert {key[0]: count for key, count in books.totals("rq.job.executions", "rq.job.status").items()} == statuses
    # Nobody saw when what vanished did, and nobody says how long it took.
    seen = {status: count for status, count in statuses.items() if status != "vanished"}
    assert {key[0]: count for key, count in books.totals("messaging.process.duration", "rq.job.status").items()} == seen


@pytest.mark.parametrize("name", ["Worker", "SpawnWorker"])
def test_an_orphan_tells_its_own_end(floor, name):
    """Also what the worker had counted before and not yet sent when it was killed."""
    floor.enqueue(*["finished"] * BEFORE)
    worker = floor.work(name)
    floor.wait_note("finished", BEFORE)
    floor.wait_idle()
    floor.enqueue("orphan")
    pid = floor.wait_note("orphan")["pid"]
    kill(worker)
    assert psutil.pid_exists(pid)
    floor.wait_note("orphan done")
    floor.wait_gone(pid)
    books = closed(floor)

    check(books, {"finished": BEFORE + 1}, floor.said())
    assert rq.job.Job.fetch(floor.jobs[-1][1], connection=floor.redis).get_status() == "finished"


@pytest.mark.parametrize("name", ["Worker", "SpawnWorker"])
@pytest.mark.parametrize("order", ["worker first", "work-horse first"])
def test_both_killed_are_told_by_whoever_comes_next(floor, name, order):
    floor.enqueue(*["finished"] * BEFORE)
    worker = floor.work(name)
    floor.wait_note("finished", BEFORE)
    floor.wait_idle()
    floor.enqueue("abandoned")
    pid = floor.wait_note("abandoned")["pid"]
    if order == "work-horse first":  # its worker may have told it by the time it dies, too
        os.kill(pid, signal.SIGKILL)
        kill(worker)
    else:
        kill(worker)
        os.kill(pid, signal.SIGKILL)
    floor.wait_gone(pid)
    books = closed(floor)

    (note,) = books.of("abandoned")
    told = attributes(books.spans[note["span"]][0])["rq.job.status"]
    assert told in (("vanished",) if order == "worker first" else ("killed", "vanished"))
    check(books, {"finished": BEFORE, told: 1}, floor.said())


@pytest.mark.parametrize("name", ["Worker", "SpawnWorker"])
def test_a_retry_beside_a_live_orphan_is_an_execution_of_its_own(floor, name):
    """RQ takes the job for abandoned and runs it again while the first run still goes on."""
    (job,) = floor.enqueue("orphan_retried")
    worker = floor.work(name)
    orphan = floor.wait_note("orphan_retried")["pid"]
    kill(worker)
    floor.expire_heartbeats()
    second = floor.work(name)
    floor.wait_note("orphan_retried", 2)  # which the first waits for
    floor.wait_note("orphan_retried done", 2)
    floor.wait_gone(orphan)
    floor.terminate(second)
    books = closed(floor)

    first, again = (books.spans[note["span"]] for note in books.of("orphan_retried"))
    assert [attributes(span)["rq.job.attempt"] for span in (*first, *again)] == [1, 2]
    assert {attributes(span)["messaging.message.id"] for span in (*first, *again)} == {job}
    assert first[0].end_time_unix_nano > again[0].start_time_unix_nano
    check(books, {"finished": 2}, floor.said())


def test_requeued_by_hand_beside_a_live_orphan(floor):
    """The operator does not wait: the job is put back while its first run goes on."""
    (job,) = floor.enqueue("orphan_retried")
    worker = floor.work()
    orphan = floor.wait_note("orphan_retried")["pid"]
    kill(worker)
    fetched = rq.job.Job.fetch(job, connection=floor.redis)
    fetched.retries_left = 0
    fetched.save()
    floor.queue._enqueue_job(fetched)
    second = floor.work()
    floor.wait_note("orphan_retried", 2)
    floor.wait_note("orphan_retried done", 2)
    floor.wait_gone(orphan)
    floor.terminate(second)
    books = closed(floor)

    check(books, {"finished": 2}, floor.said())


def test_many_workers_one_after_the_other_killed_amid_work(floor):
    """Whatever moment the kill meets: counted, not yet sent, being drained, being adopted."""
    workers = 6
    floor.enqueue(*["tiny"] * 120)
    for number in range(workers):
        worker = floor.work()
        enough = (number + 1) * 15
        wait_for(lambda enough=enough: len(floor.notes()) >= enough, 30, f"{enough} notes\n{floor.said()}")
        time.sleep(number * 0.003)
        kill(worker)
    last = floor.work(burst=True)
    assert floor.end(last) == 0
    for note in floor.notes():
        floor.wait_gone(note["pid"])
    books = closed(floor)

    statuses = Counter(attributes(span)["rq.job.status"] for span in books.consumers)
    assert statuses["finished"] >= 120 - workers
    assert statuses.total() == len(books.notes)
    check(books, statuses, floor.said())
