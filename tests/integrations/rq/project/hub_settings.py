"""Django settings that end with ``setup()``; also a configuration module for ``rq worker -c``."""

from __future__ import annotations

import os

SECRET_KEY = "tests"
INSTALLED_APPS = ["django_rq"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
RQ_QUEUES = {"default": {"URL": f"redis://127.0.0.1:{os.environ['HUB_REDIS_PORT']}/0", "DEFAULT_TIMEOUT": 60}}
REDIS_URL = RQ_QUEUES["default"]["URL"]
USE_TZ = True

if "HUB_NO_SETUP" not in os.environ:
    import chegou_otel

    chegou_otel.setup("hub", endpoint=os.environ["HUB_ENDPOINT"], spool_dir=os.environ["HUB_SPOOL"])
