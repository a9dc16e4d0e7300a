"""``path("health/", include("chegou_otel.urls"))``."""

from __future__ import annotations

from typing import Final

from django.urls import path

from chegou_otel.app.health import health

app_name: Final = "chegou_otel"
urlpatterns: Final = [path("", health, name="health")]
