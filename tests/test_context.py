"""Where the current context is kept."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import context as api

from chegou_otel import _context

OTHERS = """
from opentelemetry import context as api
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

class Theirs(ContextVarsRuntimeContext):
    def get_current(self):
        return api.Context({**super().get_current(), "theirs": True})

api._RUNTIME_CONTEXT = Theirs()

from chegou_otel import _context

token = _context.attach(api.Context({"ours": 1}))
assert _context.get_current() == api.get_current() == {"ours": 1, "theirs": True}
"""


@pytest.mark.parametrize(("attach", "get_current"), [(_context.attach, api.get_current), (api.attach, _context.get_current)])
def test_it_is_the_api_s_own(attach, get_current):
    given = api.Context({"a": 1})
    token = attach(given)
    try:
        assert get_current() is given
    finally:
        api.detach(token)


def test_no_function_lies_between():
    called = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    _context.get_current()
    sys.setprofile(None)

    assert called == []


def test_a_runtime_context_of_somebody_else_is_asked():
    """As ``OTEL_PYTHON_CONTEXT`` installs it."""
    subprocess.run([sys.executable, "-c", OTHERS], check=True, timeout=30)
