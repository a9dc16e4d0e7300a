"""What a request begins with, and how it is described. One per ``setup()``; what is the same for many requests is made once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation
from chegou_otel._context import get_current
from chegou_otel._guard import guarded
from chegou_otel.integrations.django.exchange import Exchange, current
from chegou_otel.integrations.django.routes import excluding, route_of
from chegou_otel.integrations.django.users import reader
from chegou_otel.redaction import REDACTED
from chegou_otel.signals.encoding import Safe, Static

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chegou_otel._runtime import Runtime
    from chegou_otel.signals.metrics import Series

_SERVER: Final = SpanKind.SERVER.value
_METHODS: Final = {m: m for m in ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")}
_OTHER: Final = "_OTHER"
_VERSIONS: Final = {"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2": "2", "HTTP/2.0": "2", "HTTP/3": "3", "HTTP/3.0": "3"}
_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]{1,5}))?").fullmatch
_MAX_ANSWERS: Final = 2_000
_MAX_TEXTS: Final = 2_000
_MAX_TEXT: Final = 1_024
_ERRORS_FROM: Final = 500
_NOTHING: Final = Context()


class Answer:
    """What is the same for all requests to one route with one outcome."""

    __slots__ = ("labels", "secrets", "series", "static")

    def __init__(self, static: Static, labels: tuple[tuple[str, Any], ...], series: Series) -> None:
        self.static = static
        self.labels = labels
        self.series = series
        self.secrets: tuple[str, ...] | None = None  # path parameters whose values are secret, when they are known


class Server:
    """Opens exchanges and describes them."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        self.runtime = runtime
        #: Spans and metrics are somebody else's (upstream's instrumentation); correlation stays ours.
        self.passive = False
        self._tracer = runtime.tracer("chegou_otel.django")
        self._durations = runtime.metrics.histogram("http.server.request.duration", "s", "Duration of HTTP server requests.")
        self._actives = runtime.metrics.updown("http.server.active_requests", "{request}", "Number of active HTTP server requests.")
        self._redactor = runtime.redactor
        self._header = settings.response_header
        self._lower_header = settings.response_header.lower()
        self._is_excluded = excluding(settings.excluded_paths)
        self._user = reader(settings.user)
        self._client_address = settings.client_address
        self._request_headers = tuple((f"HTTP_{n.upper().replace('-', '_')}", n.lower()) for n in settings.capture_request_headers)
        self._response_headers = tuple(n.lower() for n in settings.capture_response_headers)
        self._behind_proxy: bool | None = None
        self._starts: dict[tuple[str, str], tuple[Static, Series]] = {}
        self._answers: dict[tuple[Any, ...], Answer] = {}
        self._texts: dict[str, Safe] = {}

    # -- the beginning -------------------------------------------------------------------------------------------------

    @guarded
    def open_wsgi(self, environ: Mapping[str, Any]) -> Exchange:
        """A request comes in from a WSGI server."""
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if not path.isascii():
            path = path.encode("latin-1", "replace").decode("utf-8", "replace")
        return self._open(environ, path or "/", self._base())

    @guarded
    def open_asgi(self, scope: Mapping[str, Any]) -> Exchange | None:
        """A request comes in from an ASGI server; ``None`` for anything but HTTP."""
        if scope["type"] != "http":
            return None
        environ = {
            "REQUEST_METHOD": scope["method"],
            "SERVER_PROTOCOL": "HTTP/" + scope.get("http_version", "1.1"),
            "wsgi.url_scheme": scope.get("scheme", "http"),
        }
        query = scope.get("query_string")
        if query:
            environ["QUERY_STRING"] = query.decode("latin-1") if isinstance(query, bytes) else query
        client, server = scope.get("client"), scope.get("server")
        if client:
            environ["REMOTE_ADDR"] = client[0]
        if server:
            environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
        for name, value in scope["headers"]:
            if b"_" not in name:
                environ["HTTP_" + name.decode("latin-1").upper().replace("-", "_")] = value.decode("latin-1")
        exchange = self._open(environ, scope["path"], self._base())
        exchange.closes = False
        return exchange

    @guarded
    def enter(self, request: Any) -> Exchange:
        """Django begins with a request: the one that came in, or one that a test client made up, which begins here."""
        exchange = current.get()
        if exchange is None or exchange.claimed:
            exchange = self._open(request.META, request.path, get_current())
            exchange.own = True
        exchange.claimed = True
        return exchange

    def _base(self) -> Context:
        """What a server's call begins under: nothing, whatever its thread was started by, unless an outer server span is current."""
        context = get_current()
        span = context.get(_SPAN_KEY) if context else None
        return context if getattr(span, "kind", None) is SpanKind.SERVER else _NOTHING

    def _open(self, environ: Mapping[str, Any], path: str, base: Context) -> Exchange:
        known = self._correlation(environ, base)
        values: dict[str, Any] = {**base, correlation.KEY: known}
        if self.passive:
            return Exchange(self, known, Context(values))
        if self._is_excluded is not None and self._is_excluded(path):
            values[_SUPPRESS_INSTRUMENTATION_KEY] = True
            return Exchange(self, known, Context(values))
        return self._recording(environ, path, known, values)

    def _correlation(self, environ: Mapping[str, Any], base: Context) -> correlation.Correlation:
        for header in ("HTTP_X_CORRELATION_ID", "HTTP_X_REQUEST_ID"):
            value = environ.get(header)
            if value is not None and correlation.is_well_formed(value):
                return correlation.accept(value)
        return (correlation.current(base) if base else None) or correlation.accept(None)

    def _recording(self, environ: Mapping[str, Any], path: str, known: correlation.Correlation, values: dict[str, Any]) -> Exchange:
        context, links = Context(values), ()
        propagation = self.runtime.propagation
        if "HTTP_TRACEPARENT" in environ or "HTTP_BAGGAGE" in environ or not propagation.plain:
            context, links = propagation.extract(  # type: ignore[assignment]
                lambda name: environ.get("HTTP_" + name.upper().replace("-", "_")),
                trusted=propagation.trusts(environ.get("REMOTE_ADDR")),
                context=context,
            )
        sent = environ.get("REQUEST_METHOD") or ""
        method = _METHODS.get(sent) or _METHODS.get(sent.upper(), _OTHER)
        scheme = environ.get("wsgi.url_scheme") or "http"
        static, active = self._starts.get((method, scheme)) or self._start(method, scheme)
        attributes = self._attributes(environ, path)
        if method != sent:
            attributes["http.request.method_original"] = sent[:64]
        span: Any = self._tracer.begin(static, attributes, context=context, links=links)
        exchange = Exchange(self, known, Context({**context, _SPAN_KEY: getattr(span, "inner", span)}))
        exchange.span = span
        exchange.active = active
        exchange.method = method
        exchange.scheme = scheme
        exchange.version = _VERSIONS.get(environ.get("SERVER_PROTOCOL", ""), "")
        exchange.host = environ.get("HTTP_HOST") or _named(environ)
        return exchange

    def _start(self, method: str, scheme: str) -> tuple[Static, Series]:
        """What all requests of a method begin with: the span's constant part, and the gauge."""
        labels = (("http.request.method", method), ("url.scheme", scheme))
        known = (Static(_title(method), _SERVER, dict(labels)), self._actives.series(labels))
        if len(self._starts) < _MAX_ANSWERS:
            self._starts[method, scheme] = known
        return known

    def _attributes(self, environ: Mapping[str, Any], path: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {"url.path": self._texts.get(path) or self._text("url.path", path)}
        query = environ.get("QUERY_STRING")
        if query:
            attributes["url.query"] = Safe(self._redactor.query_string(query[:_MAX_TEXT]))
        agent = environ.get("HTTP_USER_AGENT")
        if agent:
            attributes["user_agent.original"] = self._texts.get(agent) or self._text("user_agent.original", agent)
        if self._client_address and environ.get("REMOTE_ADDR"):
            attributes["client.address"] = Safe(environ["REMOTE_ADDR"])
        for key, name in self._request_headers:
            if key in environ:
                attributes[f"http.request.header.{name}"] = self._captured(name, environ[key])
        return attributes

    def _text(self, key: str, value: str) -> Safe:
        """Redacted once: the same paths and user agents come again and again."""
        told = Safe(self._redactor.value(key, value[:_MAX_TEXT]))
        if len(self._texts) >= _MAX_TEXTS:
            self._texts.clear()
        if len(value) <= _MAX_TEXT:
            self._texts[value] = told
        return told

    def _captured(self, name: str, value: str) -> list[Safe]:
        return [Safe(self._redactor.header(name, value))]

    # -- the description -----------------------------------------------------------------------------------------------

    def add_header(self, response: Any, value: str, *, replace: bool) -> None:
        """Our header, unless the application set its own."""
        if not self._header:
            return
        # What ResponseHeaders does after checks of charset and line breaks, which a well-formed ID passes.
        stored = response.headers._store
        if replace or self._lower_header not in stored:
            stored[self._lower_header] = (self._header, value)

    def answer(self, exchange: Exchange, request: Any, *, failed: bool) -> Answer:
        """The constant part of a request's description."""
        scheme = exchange.scheme
        if self._behind_proxy is not False and request is not None:
            scheme = self._scheme(request, scheme)
        match = getattr(request, "resolver_match", None)
        route = view = script = None
        if match is not None:
            route, view, script = match.route, match._func_path, request.META.get("SCRIPT_NAME", "")
        key = (route, exchange.status, exchange.method, scheme, exchange.version, exchange.host, view, script, failed)
        known = self._answers.get(key)
        if known is None:
            known = self._answer(exchange, scheme, route_of(match, script or ""), view, failed=failed)
            if len(self._answers) >= _MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = known
        return known

    def _scheme(self, request: Any, scheme: str) -> str:
        """What the client used, where a proxy tells that (``SECURE_PROXY_SSL_HEADER``, read once)."""
        if self._behind_proxy is None:
            from django.conf import settings

            self._behind_proxy = settings.SECURE_PROXY_SSL_HEADER is not None
        return request.scheme if self._behind_proxy else scheme

    def _answer(self, exchange: Exchange, scheme: str, route: str | None, view: str | None, *, failed: bool) -> Answer:
        status = exchange.status
        labels: dict[str, Any] = {"http.request.method": exchange.method, "url.scheme": scheme}
        if route is not None:
            labels["http.route"] = route
        if status is not None:
            labels["http.response.status_code"] = status
        if exchange.version:
            labels["network.protocol.version"] = exchange.version
        if status is not None and status >= _ERRORS_FROM and not failed:
            labels["error.type"] = str(status)
        attributes = dict(labels)
        address, port = _split(exchange.host, scheme)
        if address:
            attributes["server.address"] = self._redactor.value("server.address", address)
            attributes["server.port"] = port
        if view is not None:
            attributes["code.function.name"] = view
        title = _title(exchange.method)
        static = Static(title if route is None else f"{title} {route}", _SERVER, attributes)
        told = tuple(labels.items())
        return Answer(static, told, self._durations.series(told))

    def describe(self, exchange: Exchange, answer: Answer, request: Any, response: Any) -> None:
        """What differs from request to request and is known only now."""
        span = exchange.span
        match = getattr(request, "resolver_match", None)
        if match is not None and match.kwargs:
            self._hide_parameters(span, answer, match.kwargs, request.path)
        if self._user is not None and request is not None:
            user = self._user(request)
            if user is not None:
                span.set_attribute("user.id", user)
        for name in self._response_headers:
            if response.has_header(name):
                span.set_attribute(f"http.response.header.{name}", self._captured(name, str(response.headers[name])))

    def _hide_parameters(self, span: Any, answer: Answer, parameters: Mapping[str, Any], path: str) -> None:
        """A route may say that a part of its path is secret: ``reset/<uidb64>/<token>/``."""
        if answer.secrets is None:
            answer.secrets = tuple(name for name in parameters if self._redactor.is_secret_key(name))
        if answer.secrets:
            for name in answer.secrets:
                path = path.replace(str(parameters.get(name) or "\0"), REDACTED)
            span.set_attribute("url.path", Safe(self._redactor.value("url.path", path)))

    def duration(self, exchange: Exchange, answer: Answer | None) -> Series:
        """The series that a finished request is counted in."""
        if answer is not None and exchange.error_type is None:
            return answer.series
        if answer is None:
            answer = self._answer(exchange, exchange.scheme, None, None, failed=True)
        labels = answer.labels
        if exchange.error_type is not None:
            labels = (*(label for label in labels if label[0] != "error.type"), ("error.type", exchange.error_type))
        return self._durations.series(labels)


def _title(method: str) -> str:
    return "HTTP" if method == _OTHER else method


def _named(environ: Mapping[str, Any]) -> str:
    """The server's own name, for requests without a ``Host``."""
    name, port = environ.get("SERVER_NAME") or "", environ.get("SERVER_PORT") or ""
    return f"{name}:{port}" if name and port else name


def _split(host: str, scheme: str) -> tuple[str, int]:
    """``Host`` as address and port."""
    found = _HOST(host[:255])
    if found is None:
        return host[:255], _PORTS.get(scheme, 80)
    return found["name"].strip("[]"), int(found["port"]) if found["port"] else _PORTS.get(scheme, 80)
