"""Outbound calls by ``httpx``, sync and async: ``_send_single_request``, which runs once per request that really goes out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from chegou_otel._guard import guarded
from chegou_otel.integrations._outbound import Outbound

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel._runtime import Runtime
    from chegou_otel.integrations._outbound import Request

_PORTS = {"http": 80, "https": 443}


def install(runtime: Runtime) -> None:
    runtime.when_imported("httpx._client", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    outbound = Outbound(runtime, "httpx")

    @guarded
    def begin(request: Any) -> Request | None:
        url = request.url
        hop = outbound.begin(request.method, str(url), url.host, url.port or _PORTS.get(url.scheme))
        return None if hop is None else hop.on(request)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(self: Any, request: Any) -> Any:
            if not runtime.armed:
                return original(self, request)
            hop = begin(request)
            try:
                response = original(self, request)
            except BaseException as error:
                if hop is not None:
                    hop.fail(error)
                raise
            if hop is not None:
                hop.end(response.status_code)
            return response

        return send

    def make_async(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def send(self: Any, request: Any) -> Any:
            if not runtime.armed:
                return await original(self, request)
            hop = begin(request)
            try:
                response = await original(self, request)
            except BaseException as error:  # a cancelled task, too, ends its span
                if hop is not None:
                    hop.fail(error)
                raise
            if hop is not None:
                hop.end(response.status_code)
            return response

        return send

    runtime.wrap(module.Client, "_send_single_request", make)
    runtime.wrap(module.AsyncClient, "_send_single_request", make_async)
