"""Django settings that end with ``setup()``; also a configuration module for ``rq worker -c``."""

import os

SECRET_KEY = "only-for-tests"
INSTALLED_APPS = ["django_rq"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
REDIS_URL = f"redis://127.0.0.1:{os.environ['FLOOR_REDIS_PORT']}/0"
RQ_QUEUES = {"default": {"URL": REDIS_URL, "DEFAULT_TIMEOUT": 60}}
USE_TZ = True

if "FLOOR_NO_SETUP" not in os.environ:
    import floor_telemetry  # noqa: F401 - setup() and the ledger's line
