"""A matter that was opened and is not settled outlives whoever read about it."""

from __future__ import annotations

import os
import signal

from chegou_otel.delivery.frames import W_HELD, W_SETTLED, Kind
from chegou_otel.delivery.handover import Hold
from tests.delivery.receiver import wait_for
from tests.delivery.test_forks import ended, forked


class Desk:
    """Takes ``open …`` and ``close …`` frames, and measurements."""

    def __init__(self, recorder):
        self.open, self.seen, self.measured = {}, [], []
        recorder.handlers[Kind.JOB_CHANGE] = self.change
        recorder.handlers[Kind.OUTCOME] = self.outcome
        recorder.handlers[Kind.MEASUREMENT] = self.measured.append

    def change(self, payload):
        self.seen.append(payload)
        what, _, name = payload.partition(b" ")
        if what == b"open":
            self.open[name] = Hold()
            return self.open[name]
        return None

    def outcome(self, payload):
        held = self.open.pop(payload, None)
        if held is not None:
            held.release()


def died_with(make, receiver, *payloads):
    """A process wrote these and is gone."""

    def writes():
        recorder = make(receiver.url)
        for payload in payloads:
            kind = Kind.OUTCOME if payload.startswith(b"close") else Kind.MEASUREMENT if payload == b"1" else Kind.JOB_CHANGE
            recorder.append(kind, None, payload.removeprefix(b"close "))
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(writes)) == -signal.SIGKILL


def adopting(make, receiver):
    recorder = make(receiver.url)
    desk = Desk(recorder)
    recorder.start()
    assert recorder.flush(5)
    return recorder, desk


def test_what_an_adopter_held_when_it_died_goes_to_the_next_and_is_not_added_up_twice(make, receiver):
    died_with(make, receiver, b"open a", b"close a", b"1", b"open b", b"1", b"more of b")

    def adopts_and_dies(measured):
        def run():
            _recorder, desk = adopting(make, receiver)
            assert (list(desk.open), desk.measured) == ([b"b"], measured)
            os.kill(os.getpid(), signal.SIGKILL)

        return run

    for measured in ([b"1", b"1"], []):
        assert ended(forked(adopts_and_dies(measured))) == -signal.SIGKILL
    recorder, desk = adopting(make, receiver)
    assert (desk.seen, desk.measured) == ([b"open b", b"more of b"], [])
    assert len(recorder.pool.adopted) == 1, "it stays until the matter is settled"

    desk.open.pop(b"b").release()
    wait_for(lambda: recorder.flush(1) and not recorder.pool.adopted)
    assert adopting(make, receiver)[1].seen == []


def test_a_process_that_ends_in_order_leaves_what_it_holds(make, receiver):
    died_with(make, receiver, b"open a")

    def adopts_and_leaves():
        recorder, desk = adopting(make, receiver)
        assert list(desk.open) == [b"a"]
        assert recorder.shutdown(2)

    assert ended(forked(adopts_and_leaves)) == 0
    assert list(adopting(make, receiver)[1].open) == [b"a"]


def test_a_segment_is_not_used_again_while_a_matter_is_open(make, receiver):
    recorder = make(receiver.url, segment_bytes=64 * 1024)
    desk = Desk(recorder)
    recorder.append(Kind.JOB_CHANGE, None, b"open a")
    wait_for(lambda: recorder.flush(1) and desk.open)
    first = recorder.pool.own[0]
    for _ in range(200):
        recorder.append(Kind.JOB_CHANGE, None, b"x" * 1000)
    recorder.flush(5)
    assert recorder.pool.own[0] is first
    assert first.longs[W_HELD] > 0

    desk.open.pop(b"a").release()
    assert first.longs[W_HELD] == 0
    wait_for(lambda: recorder.flush(1) and first not in recorder.pool.own)


def test_the_writer_may_note_an_end_that_it_tells_elsewhere(make, receiver):
    recorder = make(receiver.url)
    desk = Desk(recorder)
    recorder.append(Kind.JOB_CHANGE, None, b"open a")
    wait_for(lambda: recorder.flush(1) and desk.open)
    assert not desk.open[b"a"].settled_by_writer(7)
    recorder.pool.own[0].longs[W_SETTLED] = 7
    assert desk.open[b"a"].settled_by_writer(7)
