"""A web process that enqueues by django-rq and by `django.tasks`: what `wsgi.py` serves."""

from __future__ import annotations

import os

from hub_settings import *  # noqa: F403

ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "web_urls"
INSTALLED_APPS = ["django_rq", "django_tasks"] if "HUB_TASKS" in os.environ else ["django_rq"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "ATOMIC_REQUESTS": True,
    }
}
RQ = {"COMMIT_MODE": os.environ.get("HUB_COMMIT_MODE", "auto")}
TASKS = {"default": {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": ["default"]}}
RQ_QUEUES = {"default": {**RQ_QUEUES["default"], **({"JOB_CLASS": "django_tasks_rq.Job"} if "HUB_TASKS" in os.environ else {})}}  # noqa: F405
