"""uWSGI's options as it tells them, and its hook after a fork, without a uWSGI: the real one is in ``e2e/test_uwsgi.py``."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from chegou_otel import _forks, _uwsgi
from chegou_otel.testing import capture


@pytest.fixture
def server(monkeypatch):
    made = ModuleType("uwsgi")
    made.version, made.opt = b"2.0.21", {"master": True}
    monkeypatch.setitem(sys.modules, "uwsgi", made)
    for cached in (_uwsgi._hook, _uwsgi._renewal):
        cached.cache_clear()
    yield made
    for cached in (_uwsgi._hook, _uwsgi._renewal):
        cached.cache_clear()


@pytest.fixture
def forked_in_c(monkeypatch):
    """From when it is called, this is another process, and Python does not know."""
    other = os.getpid() + 1
    return lambda: monkeypatch.setattr(_uwsgi, "os", SimpleNamespace(getpid=lambda: other))


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        (b"2.0.21", {"master": True}, False),
        ("2.0.21", {b"enable-threads": b"true"}, True),
        (b"2.0.21", {"enable-threads": True}, True),
        (b"2.0.21", {"enable-threads": b"false"}, False),
        (b"2.0.21", {"threads": b"2"}, True),
        (b"2.0.31", {"master": True}, True),
        (b"2.1-dev", {}, True),
        (b"", {}, False),
    ],
)
def test_whether_threads_run(version, options, expected):
    assert _uwsgi.threads_run(SimpleNamespace(version=version, opt=options)) is expected


def test_a_process_without_threads_is_told_what_mends_it(server, caplog):
    with capture() as recorded:
        assert any("enable-threads = true" in each for each in recorded.telemetry.warnings)
    assert caplog.text.count("enable-threads = true") == 1


def test_elsewhere_nothing_is_said(caplog):
    with capture() as recorded:
        assert not any("uWSGI" in each for each in recorded.telemetry.warnings)


def test_the_hook_begins_anew_once_and_calls_the_one_that_was_there(server, forked_in_c, monkeypatch):
    renewed, called = [], []
    monkeypatch.setattr(_forks, "generation", _forks.generation)
    monkeypatch.setattr(_forks, "_renewals", [lambda: renewed.append(1)])
    server.post_fork_hook = lambda: called.append(1)
    with capture():
        forked_in_c()
        server.post_fork_hook()
        server.post_fork_hook()

    assert (renewed, called) == ([1], [1, 1])


def test_without_a_master_nobody_was_forked_and_nothing_begins_anew(server, monkeypatch):
    renewed, called = [], []
    monkeypatch.setattr(_forks, "_renewals", [lambda: renewed.append(1)])
    server.post_fork_hook = lambda: called.append(1)
    with capture():
        server.post_fork_hook()

    assert (renewed, called) == ([], [1])


def test_where_python_s_own_hooks_ran_nothing_is_done_twice(server, monkeypatch):
    renewed = []
    monkeypatch.setattr(_forks, "generation", _forks.generation)
    monkeypatch.setattr(_forks, "_renewals", [lambda: renewed.append(1)])
    with capture():
        _forks.renew()
        server.post_fork_hook()

    assert renewed == [1]


def test_uwsgi_s_decorators_put_their_hook_in_the_place_of_ours(server, forked_in_c, monkeypatch):
    renewed = []
    monkeypatch.setattr(_forks, "generation", _forks.generation)
    monkeypatch.setattr(_forks, "_renewals", [lambda: renewed.append(1)])
    decorators = ModuleType("uwsgidecorators")
    decorators.postfork_chain = [lambda: None]
    monkeypatch.setitem(sys.modules, "uwsgidecorators", decorators)
    with capture():
        forked_in_c()
        for each in decorators.postfork_chain:
            each()

    assert renewed == [1]
