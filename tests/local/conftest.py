"""The local backend inside the test process: real sockets, real files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chegou_otel.local.backend import Backend, Options
from chegou_otel.local.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """Listening on a free port."""
    backend = Backend(Options(tmp_path / "data", http_port=0))
    backend.start()
    yield backend
    backend.stop()


@pytest.fixture
def url(backend: Backend) -> str:
    """Where it listens."""
    assert backend.http
    return backend.http.url


@pytest.fixture
def store(backend: Backend) -> Store:
    """What it stored."""
    return Store(backend.options.folder)
