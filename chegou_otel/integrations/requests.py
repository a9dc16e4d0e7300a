"""Outbound calls by ``requests``: ``HTTPAdapter.send``, which runs once per request that really goes out, redirects included."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from chegou_otel._guard import guarded
from chegou_otel.integrations._outbound import Outbound

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations._outbound import Request

_PORTS = {"http": 80, "https": 443}


def install(runtime: Runtime) -> None:
    runtime.when_imported("requests.adapters", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    outbound = Outbound(runtime, "requests")

    @guarded
    def begin(prepared: Any) -> Request | None:
        parts = urlsplit(prepared.url)
        hop = outbound.begin(prepared.method or "GET", prepared.url, parts.hostname or "", parts.port or _PORTS.get(parts.scheme))
        return None if hop is None else hop.on(prepared)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            if not runtime.armed:
                return original(self, request, *args, **kwargs)
            hop = begin(request)
            try:
                response = original(self, request, *args, **kwargs)
            except BaseException as error:
                if hop is not None:
                    hop.fail(error)
                raise
            if hop is not None:
                hop.end(response.status_code)
            return response

        return send

    runtime.wrap(module.HTTPAdapter, "send", make)
