"""The guard: our failures stop there, everybody else's exceptions go on."""

from __future__ import annotations

import logging
import signal

import pytest

from chegou_otel import _guard


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
