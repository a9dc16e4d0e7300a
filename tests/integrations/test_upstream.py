"""Upstream's instrumentation beside ours: asked for, or found active. It is there when the extra ``upstream`` is installed."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("django")
ROOT = Path(__file__).parents[2]

PRELUDE = """
import sys
sys.path[:0] = {paths!r}
import django, served_settings
from django.conf import settings
from chegou_otel.testing import capture

def configure():
    names = [name for name in dir(served_settings) if name.isupper()]
    settings.configure(**{{name: getattr(served_settings, name) for name in names}})
    django.setup()

def get(path="/users/7/", **headers):
    from django.core.wsgi import get_wsgi_application
    from django.test import RequestFactory
    told = {{}}
    response = get_wsgi_application()(RequestFactory().get(path, **headers).environ, lambda status, headers: told.update(headers))
    response.close()
    return told
"""


def run(code):
    """Instrumentors change the process for good, so each case has its own."""
    prelude = PRELUDE.format(paths=[str(ROOT), str(ROOT / "tests" / "integrations" / "django" / "project")])
    done = subprocess.run([sys.executable, "-c", prelude + textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def upstream():
    pytest.importorskip("opentelemetry.instrumentation.django")


def test_asked_for(upstream):
    """Their span, once, with our correlation ID on it; settings are there when they look at them."""
    run("""
        with capture(django="upstream", redis="off") as recorded:
            configure()
            headers = get("/story/", HTTP_X_CORRELATION_ID="pedido-0000001")
            (work, span) = recorded.spans
            assert work.parent_id == span.span_id
            assert work.correlation_id == "pedido-0000001"
            assert {log.correlation_id for log in recorded.logs if log.body == "working"} == {"pedido-0000001"}
            assert "django" not in recorded.telemetry.installed
            assert "upstream" in recorded.telemetry.skipped["django"], recorded.telemetry.skipped
        assert span.kind == "SERVER"
        assert span.scope == "opentelemetry.instrumentation.django", span.scope
        assert span.attributes["http.request.method"] == "GET"
        assert span.correlation_id == "pedido-0000001" == headers["X-Correlation-ID"]
        assert settings.ROOT_URLCONF == "served_urls"
    """)


def test_found_active_before(upstream):
    run("""
        configure()
        from opentelemetry.instrumentation.django import DjangoInstrumentor
        DjangoInstrumentor().instrument()
        with capture() as recorded:
            headers = get()
            (span,) = recorded.spans
            assert "is active" in recorded.telemetry.skipped["django"]
        assert span.scope == "opentelemetry.instrumentation.django"
        assert span.correlation_id == headers["X-Correlation-ID"]
        assert DjangoInstrumentor()._is_instrumented_by_opentelemetry
    """)


def test_found_active_after(upstream):
    """manage.py switches it on when setup() has run already."""
    run("""
        configure()
        with capture() as recorded:
            from opentelemetry.instrumentation.django import DjangoInstrumentor
            DjangoInstrumentor().instrument()
            get()
            (span,) = recorded.spans
            assert span.scope == "opentelemetry.instrumentation.django"
            assert "is active" in recorded.telemetry.skipped["django"]
    """)


def test_shutdown_switches_off_what_we_switched_on(upstream):
    run("""
        configure()
        before = list(settings.MIDDLEWARE)
        with capture(django="upstream"):
            get()
            assert settings.MIDDLEWARE != before
        assert settings.MIDDLEWARE == before
    """)


def test_missing_package_says_the_command():
    """Asked for, and not installed: a warning with the exact command; the application runs."""
    done = run("""
        sys.modules["opentelemetry.instrumentation.django"] = None
        import logging
        logging.basicConfig()
        configure()
        with capture(django="upstream") as recorded:
            assert get()["X-Correlation-ID"]
            assert "pip install 'chegou-otel[upstream]'" in recorded.telemetry.skipped["django"]
    """)
    assert "pip install 'chegou-otel[upstream]'" in done.stderr


def test_off():
    run("""
        configure()
        with capture(django="off") as recorded:
            assert get()["X-Correlation-ID"]
            assert recorded.spans == []
            assert recorded.telemetry.skipped["django"] == "django='off'"
    """)


def test_redis(upstream):
    pytest.importorskip("opentelemetry.instrumentation.redis")
    run("""
        with capture(redis="upstream") as recorded:
            import redis
            from opentelemetry.instrumentation.redis import RedisInstrumentor
            assert "upstream" in recorded.telemetry.skipped["redis"], recorded.telemetry.skipped
            assert RedisInstrumentor()._is_instrumented_by_opentelemetry
        assert not RedisInstrumentor()._is_instrumented_by_opentelemetry
    """)
