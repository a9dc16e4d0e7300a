"""Every test runs with the guard strict: what we would swallow in production fails here."""

from __future__ import annotations

import pytest

from chegou_otel import _guard

pytest_plugins = ["chegou_otel.testing.plugin"]


@pytest.fixture(autouse=True)
def strict_guard(request):
    """A failure inside our own code fails the test. ``@pytest.mark.lenient`` behaves as in production."""
    _guard.strict = "lenient" not in request.keywords
    yield
    _guard.strict = False
