"""A Django project in one file, for gunicorn: ``reporting_web:application``. Its process may report; nothing in it uses a queue."""

from __future__ import annotations

import os

from chegou_otel.integrations.rq import reporter

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
INSTALLED_APPS = ["django_rq"]
RQ_QUEUES = {"default": {"URL": f"redis://127.0.0.1:{os.environ['HUB_REDIS_PORT']}/0"}}
USE_TZ = True

reporter.LEASE_SECONDS = float(os.environ["HUB_LEASE"])


def home(request):
    from django.http import HttpResponse

    return HttpResponse(str(os.getpid()))


def __getattr__(name):
    """What needs the settings, once they are there."""
    if name == "urlpatterns":
        from django.urls import path

        return [path("", home)]
    if name == "application":
        os.environ["DJANGO_SETTINGS_MODULE"] = __name__
        from django.core.wsgi import get_wsgi_application

        import chegou_otel

        chegou_otel.setup("hub", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"])
        globals()["application"] = get_wsgi_application()
        return globals()["application"]
    raise AttributeError(name)
