"""The guard: our failures stop there, everybody else's exceptions go on."""

from __future__ import annotations

import logging
import re
import signal
from pathlib import Path

import pytest

from chegou_otel import _guard
from chegou_otel.delivery.origin import ours


class OutOfTime(Exception):
    """As RQ's: raised by a signal handler, in whatever code runs."""


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.setattr(_guard, "_let_through", ())
    monkeypatch.setattr(_guard, "_said", set())
    _guard.failures.clear()
    yield
    _guard.failures.clear()


@_guard.guarded
def fail(error):
    raise error


@pytest.mark.lenient
def test_a_failure_is_counted_said_once_and_answered_with_none(clean, caplog):
    with caplog.at_level(logging.WARNING, "chegou_otel"):
        assert fail(ValueError("ours")) is None
        assert fail(ValueError("again")) is None

    assert sum(_guard.failures.values()) == 2
    assert len(caplog.records) == 1
    assert "the application goes on" in caplog.text


@pytest.mark.lenient
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_is_no_exception_goes_through(clean, error):
    with pytest.raises(type(error)):
        fail(error)


@pytest.mark.lenient
def test_a_registered_type_goes_through(clean):
    _guard.let_through(OutOfTime)

    with pytest.raises(OutOfTime):
        fail(OutOfTime())
    assert not _guard.failures


@pytest.mark.lenient
def test_a_registered_type_that_a_clean_up_hides_goes_through(clean):
    """Thread.start() answers an alarm with a KeyError of its own."""
    _guard.let_through(OutOfTime)

    @_guard.guarded
    def clumsy():
        try:
            raise OutOfTime
        except OutOfTime:
            {}["missing"]

    with pytest.raises(OutOfTime):
        clumsy()


@pytest.mark.lenient
def test_what_the_caller_was_handling_is_not_raised_again(clean):
    _guard.let_through(OutOfTime)

    try:
        raise OutOfTime
    except OutOfTime:
        assert fail(ValueError("ours")) is None


@pytest.mark.lenient
def test_an_alarm_that_strikes_inside_our_code_reaches_whoever_set_it(clean):
    _guard.let_through(OutOfTime)

    @_guard.guarded
    def busy():
        while True:
            pass

    def strike(*_):
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(OutOfTime):
            busy()
    finally:
        signal.signal(signal.SIGALRM, before)


def hidden():
    """An alarm, and a failure of the clean-up after it: the KeyError of Thread.start()."""
    try:
        raise OutOfTime
    except OutOfTime:
        {}["missing"]


def answer(work):
    """One of our own except clauses."""
    try:
        work()
    except Exception as error:
        _guard.pass_foreign(error)
        return "answered"


def test_a_hidden_one_passes_an_except_of_our_own(clean):
    _guard.let_through(OutOfTime)

    with pytest.raises(OutOfTime):
        answer(hidden)


def test_one_hidden_twice_passes(clean):
    _guard.let_through(OutOfTime)

    def deeper():
        try:
            hidden()
        except KeyError as error:
            raise ValueError("clean-up of the clean-up") from error

    with pytest.raises(OutOfTime):
        answer(deeper)


def test_an_except_of_our_own_answers_while_its_caller_handles_an_alarm(clean):
    _guard.let_through(OutOfTime)

    def application():
        raise OutOfTime

    try:
        application()
    except OutOfTime:
        assert answer(lambda: {}["missing"]) == "answered"
        assert answer(lambda: 1 / 0) == "answered"


def test_a_context_that_goes_round_in_circles_is_looked_at_once(clean):
    _guard.let_through(OutOfTime)
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first

    def circular():
        raise first

    assert answer(circular) == "answered"


def test_the_recorder_s_question_sees_a_hidden_one_and_every_frame_that_is_not_ours(clean):
    def caught(work):
        try:
            work()
        except Exception as error:
            return error

    _guard.let_through(OutOfTime)
    with pytest.raises(OutOfTime):
        ours(caught(hidden))
    assert not ours(caught(lambda: int("from a frame of the application's")))
    assert ours(ValueError("raised in no frame of others"))


EXCEPTION_TAKEN = re.compile(r"\n +except Exception(?: as \w+)?:\n((?:.*\n){1,4})")
#: Threads and processes of their own, in which no alarm strikes, and what has no answer of its own.
ON_THEIR_OWN = ("cli/", "local/", "delivery/courier.py", "delivery/sockets.py", "integrations/rq/claims.py", "integrations/rq/reporter.py")


def test_every_except_exception_of_the_package_asks_whose_it_is():
    package = Path(_guard.__file__).parent
    silent = [
        f"{file.relative_to(package)}: {found[0]}"
        for file in package.rglob("*.py")
        if not str(file.relative_to(package)).startswith(ON_THEIR_OWN)
        for found in EXCEPTION_TAKEN.finditer(file.read_text())
        if not re.search(r"pass_foreign\(|\bours\(", found[1]) and not re.search(r"^\s+raise\b", found[1], re.MULTILINE)
    ]
    assert silent == []
