"""Real servers, one of each for the whole run, on free ports. A missing one is a skip on a laptop and a failure in CI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e import servers
from tests.e2e.shop import shop  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Jaeger]:
    with servers.start_jaeger(tmp_path_factory.mktemp("jaeger")) as server:
        yield server


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Prometheus]:
    with servers.start_prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="session")
def collector(
    jaeger: servers.Jaeger, prometheus: servers.Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Collector]:
    """The collector with the shipped configuration, in front of Jaeger and Prometheus."""
    with servers.start_collector(tmp_path_factory.mktemp("collector"), jaeger=jaeger.otlp_grpc, prometheus=prometheus.otlp) as server:
        yield server
