"""The WSGI entry point: `gunicorn chegou_hub.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chegou_hub.settings")

application = get_wsgi_application()
