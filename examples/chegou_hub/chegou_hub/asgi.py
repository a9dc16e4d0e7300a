"""The ASGI entry point: `uvicorn chegou_hub.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chegou_hub.settings")

application = get_asgi_application()
