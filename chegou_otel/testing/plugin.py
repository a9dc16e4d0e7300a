"""The pytest plugin: the ``telemetry`` fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel.testing import Recorded


@pytest.fixture  # type: ignore[untyped-decorator]
def telemetry() -> Iterator[Recorded]:
    """What the code under test records: spans, logs, metrics, jobs. Nothing is sent."""
    from chegou_otel.testing import capture

    with capture() as recorded:
        yield recorded
