"""One request, from the server's call to the last byte."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import Status, StatusCode

from chegou_otel._context import attach
from chegou_otel._guard import guarded
from chegou_otel.correlation import reset
from chegou_otel.integrations.django.streams import wrap_stream
from chegou_otel.signals.errors import type_name

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context

    from chegou_otel.correlation import Correlation
    from chegou_otel.integrations.django.server import Answer, Server
    from chegou_otel.signals.metrics import Series

#: The request that is being served. Not in OpenTelemetry's context: threads that the request starts have no part in it.
current: Final[ContextVar[Exchange | None]] = ContextVar("chegou_otel_exchange", default=None)
#: Where a response keeps its exchange.
HELD: Final = "_chegou_otel"
_ERRORS_FROM: Final = 500
_ERROR: Final = Status(StatusCode.ERROR)


class Exchange:
    """A request being served. Every method is a hook: guarded, and harmless when repeated.

    It keeps no reference to the request or the response; the response keeps one to it, so an exchange whose response is thrown away
    unclosed ends with it.
    """

    # Defaults of the class, not assignments: most requests change few of them, and making an exchange is on every request's way.
    span: Any = None  # None: excluded, or left to somebody else; then only the correlation ID is ours
    active: Series | None = None  # the gauge of requests being served
    claimed = False  # whether get_response has seen it
    own = False  # whether get_response opened it (Django's test client)
    closes = True  # whether response.close() ends it (not under ASGI)
    held = False  # whether a response holds it
    status: int | None = None
    error: BaseException | None = None  # what nobody handled
    error_type: str | None = None
    handled: BaseException | None = None  # what a middleware answered
    disconnected = False
    sent = 0.0  # when the last byte went out, as far as is known
    method = scheme = version = host = ""  # said by the server's opening, for labels and attributes
    _answer: Answer | None = None
    _counted = False
    _ended = False
    _token: Token[Context] | None = None
    _opened: Token[Exchange | None] | None = None
    _close_token: Token[Context] | None = None

    def __init__(self, server: Server, correlation: Correlation, context: Context) -> None:
        self._server = server
        self.correlation = correlation
        self.context = context
        self._start = perf_counter()

    def __reduce__(self) -> tuple[Any, ...]:
        """Whoever pickles a response gets it without its exchange."""
        return (_nothing, ())

    @guarded
    def attach(self) -> None:
        """Make it the current one, and count it."""
        self._opened = current.set(self)
        self._token = attach(self.context)
        if self.active is not None:
            self._counted = True
            self.active.add(1)

    def detach(self) -> None:
        """Leave nothing in the thread."""
        token, opened = self._token, self._opened
        self._token = self._opened = None
        if token is not None:
            reset(token)
        if opened is not None:
            reset(opened)  # type: ignore[arg-type]

    # -- what happens to it --------------------------------------------------------------------------------------------

    @guarded
    def respond(self, request: Any, response: Any, *, header: bool = True) -> None:
        """Django has made a response: it is described, gets our header, and holds the exchange until it is closed."""
        try:
            self._respond(request, response, header=header)
        finally:
            if self.own:
                self.detach()
                if not self.held:
                    self.finish()

    def _respond(self, request: Any, response: Any, *, header: bool) -> None:
        self.status = response.status_code
        before = response.__dict__.get(HELD)
        if header:
            self._server.add_header(response, self.correlation.id, replace=before is not None)
        if before is not None:
            before.finish()  # a response that is used again and again
        response.__dict__[HELD] = self
        self.held = True
        self.sent = perf_counter()
        if self.span is not None:
            self._describe(request, response)
        if getattr(response, "streaming", False):
            wrap_stream(self, response)

    @guarded
    def _describe(self, request: Any, response: Any) -> None:
        if self.status is not None and self.status >= _ERRORS_FROM and self.error is None and self.handled is not None:
            self.note(self.handled)
        failed = self.error is not None and self.status is not None and self.status >= _ERRORS_FROM
        answer = self._answer = self._server.answer(self, request, failed=failed)
        self.span.set_static(answer.static)
        if failed and self.error is not None:
            self._fail(self.error)
        elif self.status is not None and self.status >= _ERRORS_FROM:
            self.span.set_status(_ERROR)
        self._server.describe(self, answer, request, response)

    def leave_out(self) -> None:
        """Nothing is told of this request: it is one of ours (a health check), which only its view knows."""
        self.span = None

    @guarded
    def note(self, error: BaseException) -> None:
        """An exception that nobody handled; told once, however often it is met."""
        if self.span is not None and self.error is not error and not self._ended:
            self.error = error
            self.span.record_exception(error)

    def _fail(self, error: BaseException) -> None:
        self.error_type = type_name(error)
        self.span.fail(error, record=False)

    @guarded
    def escape(self, error: BaseException) -> None:
        """An exception left ``get_response``."""
        if self.own:
            self.abort(error)
        elif _is_cancellation(error):
            self.disconnected = True

    @guarded
    def stream_failed(self, error: BaseException) -> None:
        """An exception left the response's content."""
        if _is_cancellation(error):
            self.disconnected = True
        elif self.span is not None and not self._ended:
            self.note(error)
            self._fail(error)

    @guarded
    def send_failed(self, error: BaseException) -> None:
        """Sending stopped half-way: the client is gone, unless it was the content that failed."""
        self.sent = perf_counter()
        if _is_cancellation(error) or (isinstance(error, OSError) and error is not self.error):
            self.disconnected = True

    @guarded
    def was_sent(self) -> None:
        """The last byte is out."""
        self.sent = perf_counter()

    # -- how it ends ---------------------------------------------------------------------------------------------------

    @guarded
    def hand_over(self, handler: Any, result: Any) -> None:
        """The WSGI application returned. The response will be closed by the server; one that we do not hold ends now."""
        try:
            if self.status is None and hasattr(result, "status_code"):
                self.respond(None, result, header=not serves_files(handler))
            if not self.held:
                self.finish()
        finally:
            self.detach()

    @guarded
    def begin_close(self) -> None:
        """The server closes the response: what Django does then (``request_finished``) still belongs to the request."""
        if not self._ended and self._close_token is None:
            self.sent = perf_counter()
            self._close_token = attach(self.context)

    @guarded
    def end_close(self) -> None:
        """The response is closed."""
        token, self._close_token = self._close_token, None
        try:
            if token is not None:
                reset(token)
        finally:
            self.finish()

    @guarded
    def abort(self, error: BaseException) -> None:
        """An exception went through to the server."""
        try:
            if _is_cancellation(error):
                self.disconnected = True
            elif self.span is not None and not self._ended and not (self.disconnected and isinstance(error, OSError)):
                self.note(error)
                self._fail(error)
        finally:
            self.complete()

    @guarded
    def complete(self) -> None:
        """The ASGI application returned."""
        try:
            if self.status is None and self.error is None:
                self.disconnected = True  # nobody was there any more to be answered
            self.finish()
        finally:
            self.detach()

    def finish(self, end: int | None = None) -> None:
        """The end, once: gauge down, duration, span."""
        if self._ended:
            return
        self._ended = True
        try:
            if self.span is not None:
                self._finish(end)
        finally:
            if self._counted and self.active is not None:
                self.active.add(-1)

    def _finish(self, end: int | None) -> None:
        try:
            if self.disconnected:
                self.span.set_attribute("chegou_otel.disconnected", True)
            self._server.duration(self, self._answer).record((self.sent or perf_counter()) - self._start, self.span)
        finally:
            self.span.end(end)

    @guarded
    def _forgotten(self) -> None:
        """Nobody closed the response (somebody calls the application by hand): it ended when it was made."""
        if not self._ended:
            self.finish(time_ns() - int((perf_counter() - self.sent) * 1e9) if self.sent else None)

    def __del__(self) -> None:
        if not self._ended:
            self._forgotten()


def serves_files(handler: Any) -> bool:
    """Whether this is runserver handing out a static file, past the middleware: a file goes out as it is."""
    module = sys.modules.get("django.contrib.staticfiles.handlers")
    return module is not None and isinstance(handler, module.StaticFilesHandlerMixin)


def _is_cancellation(error: BaseException) -> bool:
    return type(error).__name__ in ("CancelledError", "GeneratorExit")


def _nothing() -> None:
    return None
