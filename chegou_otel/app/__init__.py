"""The Django application: ``INSTALLED_APPS = ["chegou_otel", …]`` is another way to call ``setup()``."""
