from __future__ import annotations

import pytest

from chegou_otel import _guard
from chegou_otel.delivery.endpoints import endpoints
from chegou_otel.delivery.otlp import Scope
from chegou_otel.delivery.recorder import Recorder
from tests.delivery.items import RESOURCE
from tests.delivery.receiver import Receiver


@pytest.fixture(autouse=True)
def no_failures():
    """Whatever our code swallows and counts is a failure of the test."""
    _guard.failures.clear()
    yield
    assert not _guard.failures


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def scope():
    return Scope.of("tests.delivery", "1.0")


@pytest.fixture
def make(tmp_path):
    """Makes recorders that share a spool, and shuts them down."""
    made = []

    def build(url=None, **options):
        options.setdefault("service", "shop")
        options.setdefault("spool_dir", tmp_path)
        if url is not None:
            options.setdefault("endpoints", endpoints(url, {}))
        recorder = Recorder(RESOURCE, **options)
        made.append(recorder)
        return recorder

    yield build
    for recorder in made:
        recorder.shutdown(0.5)


@pytest.fixture
def spool(tmp_path):
    """The folder of the service ``shop``."""
    return tmp_path / "shop"
