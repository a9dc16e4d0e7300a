"""Where Django is taken hold of.

``WSGIHandler`` and ``ASGIHandler`` are where a server calls in; ``BaseHandler.get_response`` is where every request passes, those
of the test client too; ``HttpResponseBase.close`` is where the last byte is out. The user's call stands outside of every guard and
happens exactly once.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from chegou_otel import correlation
from chegou_otel._context import attach
from chegou_otel._guard import guarded
from chegou_otel.integrations import upstream
from chegou_otel.integrations.django.exchange import HELD, Exchange, current, serves_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chegou_otel.integrations.django.server import Server


def patch_wsgi(server: Server, module: ModuleType) -> None:
    """The outermost point of a WSGI request."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(self: Any, environ: Any, start_response: Any) -> Any:
            exchange = server.open_wsgi(environ) if server.runtime.armed else None
            if exchange is None:
                return original(self, environ, start_response)
            exchange.attach()
            try:
                result = original(self, environ, start_response)
            except BaseException as error:
                exchange.abort(error)
                raise
            exchange.hand_over(self, result)
            return result

        return call

    server.runtime.wrap(module.WSGIHandler, "__call__", make)


def patch_asgi(server: Server, module: ModuleType) -> None:
    """The outermost point of an ASGI request, and the sending of its response."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def call(self: Any, scope: Any, receive: Any, send: Any) -> Any:
            exchange = server.open_asgi(scope) if server.runtime.armed else None
            if exchange is None:
                return await original(self, scope, receive, send)
            exchange.attach()
            try:
                result = await original(self, scope, receive, send)
            except BaseException as error:
                exchange.abort(error)
                raise
            exchange.complete()
            return result

        return call

    def make_send(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def send_response(self: Any, response: Any, send: Any) -> Any:
            exchange = sending(self, response) if server.runtime.armed else None
            if exchange is None:
                return await original(self, response, send)
            try:
                result = await original(self, response, send)
            except BaseException as error:
                exchange.send_failed(error)
                raise
            exchange.was_sent()
            return result

        return send_response

    server.runtime.wrap(module.ASGIHandler, "__call__", make)
    server.runtime.wrap(module.ASGIHandler, "send_response", make_send)


@guarded
def sending(handler: Any, response: Any) -> Exchange | None:
    """The exchange whose response goes out; one that ``get_response`` did not make (an unreadable request) is described here."""
    exchange = current.get()
    if exchange is not None and exchange.status is None:
        exchange.respond(None, response, header=not serves_files(handler))
    return exchange


def patch_base(server: Server, module: ModuleType) -> None:
    """Where every request passes, whoever calls."""
    handler = module.BaseHandler

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def get_response(self: Any, request: Any) -> Any:
            exchange = server.enter(request) if server.runtime.armed else None
            if exchange is None:
                return original(self, request)
            if exchange.own:
                exchange.attach()
            try:
                response = original(self, request)
            except BaseException as error:
                exchange.escape(error)
                raise
            exchange.respond(request, response)
            return response

        return get_response

    def make_async(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def get_response_async(self: Any, request: Any) -> Any:
            exchange = server.enter(request) if server.runtime.armed else None
            if exchange is None:
                return await original(self, request)
            if exchange.own:
                exchange.attach()
            try:
                response = await original(self, request)
            except BaseException as error:
                exchange.escape(error)
                raise
            exchange.respond(request, response)
            return response

        return get_response_async

    server.runtime.wrap(handler, "get_response", make)
    server.runtime.wrap(handler, "get_response_async", make_async)
    server.runtime.wrap(handler, "process_exception_by_middleware", functools.partial(_watch_handled, server))
    server.runtime.wrap(handler, "load_middleware", functools.partial(_watch_loading, server))
    server.runtime.wrap(handler, "resolve_request", functools.partial(_stamp_foreign, server))


def _watch_handled(server: Server, original: Callable[..., Any]) -> Callable[..., Any]:
    """An exception that a middleware answers is told when the answer is a server error."""

    @functools.wraps(original)
    def process_exception_by_middleware(self: Any, exception: BaseException, request: Any) -> Any:
        response = original(self, exception, request)
        if response is not None and server.runtime.armed:
            was_handled(exception)
        return response

    return process_exception_by_middleware


@guarded
def was_handled(exception: BaseException) -> None:
    exchange = current.get()
    if exchange is not None:
        exchange.handled = exception


def _watch_loading(server: Server, original: Callable[..., Any]) -> Callable[..., Any]:
    """When middleware is loaded, settings are there: upstream's instrumentation, which edits them, is switched on or noticed."""

    @functools.wraps(original)
    def load_middleware(self: Any, *args: Any, **kwargs: Any) -> Any:
        if server.runtime.armed:
            see_upstream(server)
        return original(self, *args, **kwargs)

    return load_middleware


@guarded
def see_upstream(server: Server) -> None:
    reason = upstream.take_over(server.runtime, "django")
    server.passive = reason is not None
    if reason is not None:
        server.runtime.skipped["django"] = reason


def _stamp_foreign(server: Server, original: Callable[..., Any]) -> Callable[..., Any]:
    """Upstream's server span was begun by its middleware; the correlation ID is put on it when the URL is resolved."""

    @functools.wraps(original)
    def resolve_request(self: Any, request: Any) -> Any:
        if server.passive and server.runtime.armed:
            stamp()
        return original(self, request)

    return resolve_request


@guarded
def stamp() -> None:
    exchange = current.get()
    if exchange is None:
        return
    span = trace.get_current_span()
    if getattr(span, "correlation", None) is None:
        span.set_attribute(correlation.ATTRIBUTE, exchange.correlation.id)
    if correlation.current() is not exchange.correlation:
        # Upstream attached a context that it made from the headers alone, and detaches it, and with it this one, after the view.
        attach(correlation.with_correlation(exchange.correlation))


def patch_response(server: Server, module: ModuleType) -> None:
    """Where a response ends. It works on after ``shutdown()``, for the responses that are out by then."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def close(self: Any) -> Any:
            exchange = self.__dict__.get(HELD)
            if exchange is None or not exchange.closes:
                return original(self)
            exchange.begin_close()
            try:
                return original(self)
            except BaseException as error:
                exchange.note(error)
                raise
            finally:
                exchange.end_close()

        return close

    server.runtime.wrap(module.HttpResponseBase, "close", make)


def connect(server: Server, module: ModuleType) -> None:
    """Django tells of every exception that it turns into a 500."""

    def unhandled(**_: Any) -> None:
        if server.runtime.armed:
            was_unhandled(sys.exc_info()[1])

    signal = module.got_request_exception
    signal.connect(unhandled, weak=False, dispatch_uid="chegou_otel")
    server.runtime.on_shutdown.append(functools.partial(signal.disconnect, dispatch_uid="chegou_otel"))


@guarded
def was_unhandled(error: BaseException | None) -> None:
    exchange = current.get()
    if exchange is not None and error is not None:
        exchange.note(error)
