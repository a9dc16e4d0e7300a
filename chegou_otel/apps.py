"""Found by Django when ``INSTALLED_APPS`` names ``chegou_otel``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured


class ChegouOtelConfig(AppConfig):  # type: ignore[misc]
    """Calls ``chegou_otel.setup()`` with the keys of the setting ``CHEGOU_OTEL``, unless the project has called it."""

    name = "chegou_otel.app"
    label = "chegou_otel"
    verbose_name = "chegou-otel"

    def ready(self) -> None:
        from django.conf import settings

        import chegou_otel

        try:
            chegou_otel.setup(**getattr(settings, "CHEGOU_OTEL", {}))
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"CHEGOU_OTEL: {error}") from error
