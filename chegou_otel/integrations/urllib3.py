"""Outbound calls by ``urllib3``: ``HTTPConnectionPool.urlopen``. Its retries on the same host belong to the same span."""

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
    runtime.when_imported("urllib3.connectionpool", functools.partial(_patch, runtime))


def _patch(runtime: Runtime, module: ModuleType) -> None:
    outbound = Outbound(runtime, "urllib3")

    @guarded
    def begin(pool: Any, method: str, url: str) -> Request | None:
        host = pool.host.strip("[]")
        full = url if "://" in url else f"{pool.scheme}://{pool.host}:{pool.port}{url}"
        return outbound.begin(method, full, host, pool.port)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def urlopen(self: Any, method: str, url: str, body: Any = None, headers: Any = None, *args: Any, **kwargs: Any) -> Any:
            hop = begin(self, method, url) if runtime.armed else None
            if hop is None:
                return original(self, method, url, body, headers, *args, **kwargs)
            sent = {**(self.headers if headers is None else headers), **dict(hop.headers)} if hop.headers else headers
            try:
                response = original(self, method, url, body, sent, *args, **kwargs)
            except BaseException as error:
                hop.fail(error)
                raise
            hop.end(response.status)
            return response

        return urlopen

    runtime.wrap(module.HTTPConnectionPool, "urlopen", make)
