"""docs/testing.md runs as it stands, in a project of its own, by the installed plugin's name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "testing.md"
CONFTEST = """
import pytest
from django.conf import settings

pytest_plugins = {plugins!r}


def pytest_configure():
    settings.configure(ROOT_URLCONF="urls", SECRET_KEY="x", ALLOWED_HOSTS=["testserver"])


@pytest.fixture
def redis_client():
    import redis

    return redis.Redis(port={port})


@pytest.fixture
def client():
    from django.test import Client

    return Client()
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("orders/<int:number>/", lambda request, number: HttpResponse("ok"))]
"""


@pytest.mark.parametrize("runner", ["pytest", "unittest"])
def test_the_examples_run(tmp_path, redis_port, redis_client, runner):
    from tests.conftest import pytest_plugins as plugins

    (tmp_path / "conftest.py").write_text(CONFTEST.format(plugins=plugins, port=redis_port))
    (tmp_path / "urls.py").write_text(URLS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    examples = [code for _, code in blocks(PAGE, "python")]
    for number, code in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(code)
    command = ["pytest", "-q", "-p", "no:cacheprovider"] if runner == "pytest" else ["unittest", "test_example_2"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert len(examples) == 4
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("6 passed" in done.stdout) if runner == "pytest" else ("Ran 1 test" in done.stderr)


@pytest.mark.parametrize(
    "name", ["spans", "logs", "metrics", "jobs", "span", "span_names", "trace_ids", "correlation_ids", "assert_no_leak", "bytes", "clear"]
)
def test_what_the_page_lists_is_there(name):
    from chegou_otel.testing import Recorded

    assert f"`{name}" in PAGE.read_text(encoding="utf-8")
    assert hasattr(Recorded, name)


def test_the_page_lists_all():
    from chegou_otel.testing import Recorded

    told = PAGE.read_text(encoding="utf-8")
    assert [name for name in vars(Recorded) if not name.startswith("_") and name != "take" and f"`{name}" not in told] == []
