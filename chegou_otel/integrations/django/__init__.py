"""Django, WSGI and ASGI: the server span, the request metrics, and the correlation ID from the first line to the last byte.

No middleware is added, so an asynchronous stack pays for no adaptation. ``handlers`` says where Django is taken hold of,
``server`` what a request begins with and how it is described, ``exchange`` follows one request to its end.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from chegou_otel.integrations import upstream
from chegou_otel.integrations.django import handlers, logs
from chegou_otel.integrations.django.server import Server

if TYPE_CHECKING:
    from chegou_otel._runtime import Runtime


def install(runtime: Runtime) -> str | None:
    """Take hold of Django when it is imported; the reason, when our spans and metrics stay out of it.

    The correlation ID is ours in every case.
    """
    logs.install(runtime)
    server = Server(runtime)
    reason = upstream.reason(runtime.settings.django, "django")
    server.passive = reason is not None
    runtime.when_imported("django.core.handlers.base", functools.partial(handlers.patch_base, server))
    runtime.when_imported("django.core.handlers.wsgi", functools.partial(handlers.patch_wsgi, server))
    runtime.when_imported("django.core.handlers.asgi", functools.partial(handlers.patch_asgi, server))
    runtime.when_imported("django.http.response", functools.partial(handlers.patch_response, server))
    runtime.when_imported("django.core.signals", functools.partial(handlers.connect, server))
    return reason
