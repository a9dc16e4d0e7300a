"""A project, and real servers for it in this process, so that what is recorded can be read."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "project"))


@pytest.fixture(scope="session", autouse=True)
def django_is_ready():
    """Django's settings are one per process: whoever comes first configures, all others override."""
    import django
    import served_settings
    from django.conf import settings

    if not settings.configured:
        settings.configure(**{name: getattr(served_settings, name) for name in dir(served_settings) if name.isupper()})
        django.setup()


@pytest.fixture(autouse=True)
def project(django_is_ready):
    """The project's settings, whatever is configured."""
    import served_settings
    from django.test import override_settings

    with override_settings(**{name: getattr(served_settings, name) for name in dir(served_settings) if name.isupper()}):
        import served_views

        served_views.gate.clear()
        served_views.seen.clear()
        yield
        served_views.gate.set()


@pytest.fixture
def wsgi(telemetry):
    from django.core.wsgi import get_wsgi_application
    from serving import Served, serving_wsgi

    with serving_wsgi(get_wsgi_application()) as port:
        yield Served(port, "wsgi", telemetry)


@pytest.fixture
def asgi(telemetry):
    from django.core.asgi import get_asgi_application
    from serving import Served, serving_asgi

    with serving_asgi(get_asgi_application()) as port:
        yield Served(port, "asgi", telemetry)


@pytest.fixture(params=["wsgi", "asgi"])
def server(request):
    """The project behind both kinds of server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def serve():
    """A server under given settings of ours: ``with serve("wsgi", user="off") as server``."""

    @contextmanager
    def start(kind="wsgi", **settings):
        from django.core.asgi import get_asgi_application
        from django.core.wsgi import get_wsgi_application
        from serving import Served, serving_asgi, serving_wsgi

        from chegou_otel.testing import capture

        with capture(**settings) as recorded:
            running = serving_wsgi(get_wsgi_application()) if kind == "wsgi" else serving_asgi(get_asgi_application())
            with running as port:
                yield Served(port, kind, recorded)

    return start
