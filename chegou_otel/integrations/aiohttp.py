"""Outbound calls by ``aiohttp``: ``ClientRequest.send`` runs once per request that really goes out, redirects included."""

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


def install(runtime: Runtime) -> None:
    runtime.when_imported("aiohttp.client_reqrep", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    outbound = Outbound(runtime, "aiohttp")
    hops: dict[int, Request] = {}

    @guarded
    def begin(request: Any) -> Request | None:
        url = request.url
        # It ends in ClientResponse.start, maybe in another task's context: it is not made current.
        hop = outbound.begin(request.method, str(url), url.host or "", url.port, current=False)
        for name, value in hop.headers if hop is not None else ():
            request.headers[name] = value  # this hop's own headers: a redirect makes a new request from the caller's
        return hop

    def make_send(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def send(self: Any, *args: Any, **kwargs: Any) -> Any:
            hop = begin(self) if runtime.armed else None
            if hop is None:
                return await original(self, *args, **kwargs)
            try:
                response = await original(self, *args, **kwargs)
            except BaseException as error:
                hop.fail(error)
                raise
            hops[id(response)] = hop
            return response

        return send

    def make_start(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def start(self: Any, *args: Any, **kwargs: Any) -> Any:
            hop = hops.pop(id(self), None)
            try:
                result = await original(self, *args, **kwargs)
            except BaseException as error:
                if hop is not None:
                    hop.fail(error)
                raise
            if hop is not None:
                hop.end(self.status)
            return result

        return start

    def make_connect(original: Callable[..., Any]) -> Callable[..., Any]:
        """A connection that fails never reaches ``send``; it is told all the same."""

        @functools.wraps(original)
        async def connect(self: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await original(self, req, *args, **kwargs)
            except BaseException as error:
                hop = begin(req) if runtime.armed and isinstance(error, Exception) else None
                if hop is not None:
                    hop.fail(error)
                raise

        return connect

    runtime.wrap(module.ClientRequest, "send", make_send)
    runtime.wrap(module.ClientResponse, "start", make_start)
    runtime.when_imported("aiohttp.connector", lambda connector: runtime.wrap(connector.BaseConnector, "connect", make_connect))
