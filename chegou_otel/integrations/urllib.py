"""Outbound calls by the standard library's ``urllib.request``: ``AbstractHTTPHandler.do_open``, once per request that goes out."""

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
    runtime.when_imported("urllib.request", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    outbound = Outbound(runtime, "urllib")

    @guarded
    def begin(req: Any) -> Request | None:
        parts = urlsplit(req.full_url)
        hop = outbound.begin(req.get_method(), req.full_url, parts.hostname or "", parts.port or _PORTS.get(parts.scheme))
        if hop is not None and hop.headers:
            # These are not copied to the request that a redirect makes.
            req.unredirected_hdrs = {**req.unredirected_hdrs, **{name.capitalize(): value for name, value in hop.headers}}
        return hop

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def do_open(self: Any, http_class: Any, req: Any, **kwargs: Any) -> Any:
            if not runtime.armed:
                return original(self, http_class, req, **kwargs)
            headers = req.unredirected_hdrs
            hop = begin(req)
            try:
                response = original(self, http_class, req, **kwargs)
            except BaseException as error:
                if hop is not None:
                    hop.fail(error)
                raise
            finally:
                req.unredirected_hdrs = headers
            if hop is not None:
                hop.end(response.status)
            return response

        return do_open

    runtime.wrap(module.AbstractHTTPHandler, "do_open", make)
