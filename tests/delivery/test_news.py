"""What is said when something is lost: what, how much, why, and not more than once a minute."""

from __future__ import annotations

import logging

import pytest

from chegou_otel.delivery import news
from chegou_otel.delivery.frames import Kind, Priority
from tests.delivery.items import log, span
from tests.delivery.receiver import Answer, partial, wait_for


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "chegou_otel")
    return lambda: [record.getMessage() for record in caplog.records if "was lost" in record.getMessage()]


def reject_one(recorder, receiver, scope):
    receiver.plan = [partial(1, "no room for it")]
    recorder.append(Kind.SPAN, scope, span("refused"))
    assert recorder.flush(5)


def test_a_loss_is_told_with_what_how_much_and_why(make, receiver, scope, said, monkeypatch):
    monkeypatch.setattr(news, "LOSS_SECONDS", 0.0)
    recorder = make(receiver.url)
    reject_one(recorder, receiver, scope)
    wait_for(said)
    (line,) = said()
    assert "1 traces rejected" in line
    assert "no room for it" in line


def test_a_drop_is_told_by_its_reason(make, receiver, scope, said, monkeypatch):
    monkeypatch.setattr(news, "LOSS_SECONDS", 0.0)
    receiver.default = Answer(status=503)
    recorder = make(receiver.url, max_bytes=128 << 10, segment_bytes=64 << 10)
    lost = sum(not recorder.append(Kind.LOG, scope, log("x" * 2000), Priority.LOW) for _ in range(60))
    assert lost > 0
    wait_for(lambda: sum(int(line.split(": ")[1].split(" ")[0]) for line in said()) == lost)
    assert all("logs dropped (pressure)" in line for line in said())


def test_within_a_minute_nothing_is_told_twice(make, receiver, scope, said, monkeypatch):
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("fine"))
    assert recorder.flush(5)
    told = recorder.courier._news
    wait_for(lambda: told._tell_at)  # the first minute began
    for _ in range(3):
        reject_one(recorder, receiver, scope)
        told.tell()
    assert said() == []
    told._tell_at = 0.0  # … and is over
    told.tell()
    told.tell()
    (line,) = said()
    assert "3 traces rejected" in line


def test_what_was_lost_in_the_last_minute_is_told_at_the_end(make, receiver, scope, said):
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("fine"))
    assert recorder.flush(5)
    reject_one(recorder, receiver, scope)
    recorder.shutdown(1)
    (line,) = said()
    assert "1 traces rejected" in line


def test_an_heir_does_not_tell_what_the_dead_lost(make, receiver, scope, said, monkeypatch):
    monkeypatch.setattr(news, "LOSS_SECONDS", 0.0)
    writer = make(receiver.url)
    reject_one(writer, receiver, scope)
    receiver.default = Answer(status=503)
    writer.append(Kind.SPAN, scope, span("left"))
    writer.shutdown(0.2)
    before = len(said())
    receiver.default = Answer()
    heir = make(receiver.url)
    heir.append(Kind.SPAN, scope, span("own"))
    wait_for(lambda: heir.flush(5) and set(receiver.names()) >= {"left", "own"})
    heir.shutdown(1)
    assert len(said()) == before
