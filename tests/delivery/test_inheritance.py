"""What a work-horse takes over of its parent right after the fork, and what it leaves to the next one."""

from __future__ import annotations

import os

import pytest

from chegou_otel import _forks
from chegou_otel.delivery import inheritance, sockets
from chegou_otel.delivery.frames import HEADER_BYTES, Kind, Priority
from chegou_otel.delivery.otlp import Scope, resource_block
from chegou_otel.delivery.recorder import Recorder
from tests.delivery.items import span
from tests.delivery.receiver import wait_for
from tests.delivery.test_forks import ended, forked, tasks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def work_horse(recorder, work):
    """Fork one as a worker does, wait for it, and drain what it wrote."""
    segment = recorder.reserve()
    _forks.expect(lambda: inheritance.inherit(recorder, segment))
    try:
        pid = forked(work)
    finally:
        _forks.expect(None)
    assert ended(pid) == 0
    assert recorder.drain(segment, 1.0)
    return segment


def kinds(segment, start=HEADER_BYTES):
    """Of the frames from ``start`` on, and where they end."""
    found = []
    while segment.words[start >> 2] and (end := segment.following(start)) is not None:
        found.append(Kind(segment.words[(start >> 2) + 2] & 0xFF))
        start = end
    return found, start


def open_sockets():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue  # that of the listing itself
    return {link for link in found if link.startswith("socket:")}


def test_it_writes_where_its_parent_reserved_and_has_none_of_its_connections_or_threads(make, receiver, scope):
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("before"))
    assert recorder.flush(5)
    ours = {f"socket:[{os.fstat(fd).st_ino}]" for fd in sockets.connected}
    assert ours

    def work():
        assert not ours & open_sockets()
        assert recorder.courier is None
        recorder.append(Kind.SPAN, scope, span("job"))
        assert recorder.courier is None
        assert len(tasks()) == 1
        assert recorder.flush(1), "there is nothing for it to send"

    work_horse(recorder, work)
    recorder.append(Kind.SPAN, scope, span("after"))
    assert recorder.flush(5)

    assert receiver.counts() == {"before": 1, "job": 1, "after": 1}
    assert receiver.connections == 1, "the parent's connection goes on"


def test_what_one_child_announced_the_next_one_need_not(make, receiver, scope):
    recorder = make(receiver.url)

    def work():
        recorder.append(Kind.SPAN, scope, span("job"))

    segment = work_horse(recorder, work)
    first, end = kinds(segment)
    again = work_horse(recorder, work)
    second, _ = kinds(again, end)

    assert again is segment
    assert first == [Kind.RESOURCE, Kind.SCOPE, Kind.SPAN]
    assert second == [Kind.SPAN]
    assert recorder.flush(5)
    assert receiver.counts() == {"job": 2}
    assert {name for _, name, _ in receiver.spans} == {scope.name}


def test_a_scope_that_only_a_child_knew_is_not_taken_for_another_s(make, receiver, scope):
    """Both children number a scope of their own, and both numbers are the same."""
    recorder = make(receiver.url)
    for name in ("one", "other"):

        def work(name=name):
            recorder.append(Kind.SPAN, Scope.of(f"only.in.the.{name}"), span(f"in the {name}"))

        work_horse(recorder, work)
    assert recorder.flush(5)

    assert {found.name: name for found, name, _ in receiver.spans} == {"in the one": "only.in.the.one", "in the other": "only.in.the.other"}


def test_it_goes_on_in_a_segment_of_its_own_when_the_reserved_one_is_full(make, receiver, scope):
    recorder = make(receiver.url, segment_bytes=64 * 1024)

    def work():
        for number in range(200):
            recorder.append(Kind.SPAN, scope, span(f"{number} " + "x" * 1_000))

    work_horse(recorder, work)
    recorder.courier.wake(scan=True)
    wait_for(lambda: len(receiver.counts()) == 200)


def test_without_a_reserved_segment_it_makes_one(make, receiver, scope):
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("before"))
    _forks.expect(lambda: inheritance.inherit(recorder, None))
    pid = forked(lambda: recorder.append(Kind.SPAN, scope, span("job")))
    _forks.expect(None)

    assert ended(pid) == 0
    recorder.courier.wake(scan=True)
    wait_for(lambda: receiver.counts() == {"before": 1, "job": 1})


def test_what_its_parent_counted_it_does_not_count_again(make, receiver, scope):
    recorder = make(receiver.url, segment_bytes=64 * 1024)
    assert not recorder.append(Kind.SPAN, scope, b"x" * 200_000), "larger than a segment"
    lost = recorder.ledger()["traces"].dropped
    assert lost == {"size": 1}

    def work():
        for number in range(200):
            recorder.append(Kind.SPAN, scope, span(f"{number} " + "x" * 1_000))

    work_horse(recorder, work)
    recorder.courier.wake(scan=True)
    wait_for(lambda: len(receiver.counts()) == 200)

    assert recorder.ledger()["traces"].dropped == lost


def test_a_child_of_it_begins_anew_like_any_other(make, receiver, scope):
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("before"))
    assert recorder.flush(5)

    def work():
        before = len(os.listdir("/proc/self/fd"))
        pid = forked(lambda: recorder.append(Kind.SPAN, scope, span("grandchild"), Priority.HIGH))
        assert ended(pid) == 0
        recorder.append(Kind.SPAN, scope, span("job"))
        assert len(os.listdir("/proc/self/fd")) == before

    work_horse(recorder, work)
    recorder.courier.wake(scan=True)
    wait_for(lambda: receiver.counts() == {"before": 1, "job": 1, "grandchild": 1})


def test_a_worker_within_a_work_horse_closes_nothing_of_the_job_s(make, receiver, scope):
    """The numbers of the connections that the first work-horse closed are in use for something else when it forks another."""
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("before"))
    assert recorder.flush(5)
    theirs = set(sockets.connected)

    def work():
        mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
        assert theirs & set(mine), "they are in use again"

        def inner():
            for fd in mine:
                os.fstat(fd)

        work_horse(recorder, inner)

    work_horse(recorder, work)


@pytest.mark.parametrize("role", ["worker", "command", "w", "a role with a long name"])
def test_a_spawned_one_goes_on_where_its_parent_ended_whatever_it_says_it_is(make, receiver, scope, role):
    """Its resource may be longer or shorter than the parent's, which announces another one with each child."""
    recorder = make(receiver.url)
    for number in range(4):
        segment = recorder.reserve()

        def work(segment=segment, number=number):
            spawned = Recorder(resource_block({"service.name": "shop", "chegou.role": role}), service="shop")
            spawned.become(segment.address)
            spawned.append(Kind.SPAN, scope, span(f"job {number}"))

        assert ended(forked(work)) == 0
        assert recorder.drain(segment, 1.0)
    assert recorder.flush(5)

    assert receiver.counts() == {f"job {number}": 1 for number in range(4)}
