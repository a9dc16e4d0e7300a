"""Threads carry the context of whoever started them, and nothing else about them changes."""

from __future__ import annotations

import threading

import pytest

import chegou_otel

STARTER = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"


def test_a_thread_whose_first_start_failed_runs_at_the_second(telemetry, monkeypatch):
    """The system was out of threads for a moment."""
    seen = []
    thread = threading.Thread(target=lambda: seen.append(chegou_otel.get_correlation_id()))

    def refuse(*_args, **_kwargs):
        raise RuntimeError("can't start new thread")

    with chegou_otel.use_correlation_id("started-twice"):
        with monkeypatch.context() as patched:
            patched.setattr(threading, STARTER, refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                thread.start()
        thread.start()
    thread.join(10)

    assert seen == ["started-twice"]
    assert "run" not in vars(thread)


def test_a_run_that_was_assigned_to_the_instance_runs(telemetry):
    """Some replace ``run`` on the instance instead of subclassing."""
    seen = []
    thread = threading.Thread()
    thread.run = lambda: seen.append(chegou_otel.get_correlation_id())

    with chegou_otel.use_correlation_id("own-run-of-it"):
        thread.start()
    thread.join(10)

    assert seen == ["own-run-of-it"]


def test_who_wrapped_start_before_us_finds_a_run_to_wrap(monkeypatch, request):
    """sentry-sdk takes what it finds as ``run`` for the class's function, and calls it with the thread."""
    seen, original = [], threading.Thread.start

    def start(self):
        found = getattr(self.run, "__func__", self.run)
        self.run = lambda: found(threading.current_thread())
        original(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    request.getfixturevalue("telemetry")
    thread = threading.Thread(target=lambda: seen.append(chegou_otel.get_correlation_id()))
    with chegou_otel.use_correlation_id("wrapped-inside"):
        thread.start()
    thread.join(10)

    assert seen == ["wrapped-inside"]
