"""What all HTTP clients share: one span, one metric and the allowed headers per request that really goes out.

A redirect is a request of its own, so a host that a redirect leads to is checked like any other. A client that works through
another one (``requests`` over ``urllib3``) makes one span, not two.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import Context, create_key
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.correlation import reset
from chegou_otel.signals.encoding import Safe, Static
from chegou_otel.signals.errors import type_name

if TYPE_CHECKING:
    from typing import Self

    from chegou_otel._runtime import Runtime
    from chegou_otel.signals.metrics import Series

_BUSY: Final = create_key("chegou-otel-outbound")
_CLIENT: Final = 2
_ERRORS_FROM: Final = 400
_MAX_CACHED: Final = 1_000
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})


class Request:
    """One request on its way. ``headers`` are to be added to it, and to nothing that is made from it later."""

    __slots__ = ("_carrier", "_kept", "_key", "_outbound", "_span", "_start", "_token", "headers")

    def __init__(self, outbound: Outbound, span: Any, token: Any, headers: list[tuple[str, str]], key: tuple[str, str, int | None]) -> None:
        self._outbound = outbound
        self._span = span
        self._token = token
        self._key = key
        self.headers = headers
        self._carrier: Any = None
        self._start = perf_counter()

    def on(self, carrier: Any) -> Self:
        """Put the headers on a request object until the request ends.

        On a copy of its own headers: a redirect is made from those that stay on it.
        """
        if self.headers:
            kept = carrier.headers
            headers = kept.copy()
            headers.update(self.headers)
            self._carrier, self._kept = carrier, kept
            carrier.headers = headers
        return self

    def _off(self) -> None:
        if self._carrier is not None:
            self._carrier.headers = self._kept
            self._carrier = None

    @guarded
    def end(self, status: int) -> None:
        """An answer came; its headers are read."""
        self._off()
        static, series = self._outbound.answered(self._key, status)
        self._span.set_static(static)
        if status >= _ERRORS_FROM:
            self._span.set_status(Status(StatusCode.ERROR))
        self._close(series)

    @guarded
    def fail(self, error: BaseException) -> None:
        """No answer came."""
        self._off()
        self._span.fail(error)
        self._close(self._outbound.failed(self._key, error))

    def _close(self, series: Series) -> None:
        if self._token is not None:
            reset(self._token)
        series.record(perf_counter() - self._start, self._span)
        self._span.end()


class Outbound:
    """Made once per HTTP library."""

    def __init__(self, runtime: Runtime, scope: str) -> None:
        self._runtime = runtime
        self._tracer = runtime.tracer(f"chegou_otel.{scope}")
        self._duration = runtime.metrics.histogram("http.client.request.duration", "s", "Duration of outbound HTTP requests.")
        self._statics: dict[tuple[str, str, int | None], Static] = {}
        self._answers: dict[tuple[tuple[str, str, int | None], int], tuple[Static, Series]] = {}

    @guarded
    def begin(self, method: str, url: str, host: str, port: int | None, *, current: bool = True) -> Request | None:
        """Start a request's span; ``None`` when it is another client's request already, or suppressed.

        Args:
            method: As sent.
            url: The whole URL; it is redacted here.
            host: Without port and brackets.
            port: As connected to.
            current: Make the span the current one until the request ends (not for code that ends it in another context).
        """
        ctx = get_current()
        if _BUSY in ctx or ctx.get(SUPPRESS):
            return None
        key = (method if method in _METHODS else "_OTHER", host, port)
        static = self._statics.get(key) or self._static(key)
        attributes: dict[str, Any] = {"url.full": Safe(self._runtime.redactor.url(url))}
        if method not in _METHODS:
            attributes["http.request.method_original"] = method
        span = self._tracer.begin(static, attributes, context=ctx)
        token = attach(Context({**ctx, _SPAN_KEY: getattr(span, "inner", span), _BUSY: True})) if current else None
        return Request(self, span, token, self._runtime.propagation.outbound(span, host, port), key)

    def _static(self, key: tuple[str, str, int | None], **more: Any) -> Static:
        method, host, port = key
        attributes: dict[str, Any] = {"http.request.method": method, "server.address": host}
        if port is not None:
            attributes["server.port"] = port
        static = Static("HTTP" if method == "_OTHER" else method, _CLIENT, {**attributes, **more})
        if not more and len(self._statics) < _MAX_CACHED:
            self._statics[key] = static
        return static

    def answered(self, key: tuple[str, str, int | None], status: int) -> tuple[Static, Series]:
        """The constant part of a span with that answer, and its series."""
        known = self._answers.get((key, status))
        if known is None:
            more: dict[str, Any] = {"http.response.status_code": status}
            if status >= _ERRORS_FROM:
                more["error.type"] = str(status)
            known = (self._static(key, **more), self._series(key, more))
            if len(self._answers) < _MAX_CACHED:
                self._answers[key, status] = known
        return known

    def failed(self, key: tuple[str, str, int | None], error: BaseException) -> Series:
        return self._series(key, {"error.type": type_name(error)})

    def _series(self, key: tuple[str, str, int | None], more: dict[str, Any]) -> Series:
        method, host, port = key
        labels: list[tuple[str, Any]] = [("http.request.method", method), ("server.address", host), *more.items()]
        if port is not None:
            labels.append(("server.port", port))
        return self._duration.series(tuple(labels))
