"""For `rq worker -c chegou_hub.rqconfig`: the worker's parent loads Django, and with it everything that settings.py sets up."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chegou_hub.settings")
django.setup()

from django.conf import settings  # noqa: E402

REDIS_URL = settings.REDIS_URL
QUEUES = ["default"]
