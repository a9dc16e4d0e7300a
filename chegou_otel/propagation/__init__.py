"""Who may receive what, and whose word is believed.

Outbound, ``traceparent``, baggage and the correlation ID go to loopback and to the hosts that ``propagate_to`` names, and to
nobody else. Inbound, ``traceparent`` and baggage are believed from the networks that ``trust_from`` names; anybody else's trace
is linked, not joined, and forces no sampling.

The W3C formats are written and read by ``w3c``; when somebody chose other formats (``OTEL_PROPAGATORS``,
``set_global_textmap``), OpenTelemetry's global propagator does it, under the same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation
from chegou_otel._context import get_current
from chegou_otel._guard import guarded, logger, pass_foreign
from chegou_otel.propagation import hosts, w3c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Headers = list[tuple[str, str]]
    Get = Callable[[str], str | None]

_MAX_CACHED: Final = 1_000
_DEFAULT: Final = ("TraceContextTextMapPropagator", "W3CBaggagePropagator")


class Inbound(NamedTuple):
    """What came in: the context to start under (with a remote parent when that is believed), and links otherwise."""

    context: Context
    links: tuple[Link, ...] = ()


class Propagation:
    """One per ``setup()``. Both lists are read once; a bad entry is reported and left out, which denies.

    Args:
        propagate_to: Hosts: ``api.example.com``, ``api.example.com:8443``, ``*.example.com`` (below it), ``.internal`` (it and below
            it), addresses, networks, ``*`` (everybody).
        trust_from: Networks or addresses, and ``unix`` for peers on a Unix socket.
    """

    def __init__(self, propagate_to: Iterable[str] = (), trust_from: Iterable[str] = ()) -> None:
        self._patterns: list[hosts.HostPattern] = _known(hosts.host_pattern, propagate_to, "propagate_to")
        self._networks: list[hosts.Network | str] = _known(hosts.network, trust_from, "trust_from")
        self._allowed: dict[tuple[str, int | None], bool] = {}
        self._trusted: dict[str, bool] = {}
        self._get_global: Callable[[], object] | None = None
        self._seen: object = None
        self._plain = True

    # -- who -----------------------------------------------------------------------------------------------------------

    def allows(self, host: str, port: int | None = None) -> bool:
        """Whether ``host`` may receive headers. Case, a trailing dot and brackets do not matter; odd names are denied."""
        known = self._allowed.get((host, port))
        if known is None:
            named = hosts.normal(host)
            known = named is not None and (hosts.is_loopback(named) or any(pattern.fits(named, port) for pattern in self._patterns))
            if len(self._allowed) < _MAX_CACHED:
                self._allowed[host, port] = known
        return known

    def trusts(self, address: str | None) -> bool:
        """Whether the peer at ``address`` (``REMOTE_ADDR``; empty on a Unix socket) is believed."""
        if not self._networks:
            return False
        known = self._trusted.get(address or "")
        if known is None:
            known = hosts.is_within(address or "", self._networks)
            if len(self._trusted) < _MAX_CACHED:
                self._trusted[address or ""] = known
        return known

    # -- outbound ------------------------------------------------------------------------------------------------------

    def headers_for(self, host: str, port: int | None = None) -> Headers:
        """Headers of the current context for a request to ``host``; none for a host that is not allowed."""
        return self._headers(None, host, port) or []

    def outbound(self, span: Span, host: str, port: int | None = None) -> Headers:
        """The same for a given client span."""
        return self._headers(span, host, port) or []

    @guarded
    def _headers(self, span: Span | None, host: str, port: int | None) -> Headers:
        if not self.allows(host, port):
            return []
        context = get_current()
        inner = getattr(span, "inner", span) or context.get(_SPAN_KEY)
        headers = w3c.write(inner if isinstance(inner, Span) else None, context) if self.plain else _write_chosen(inner, context)
        known = correlation.current(context)
        if known is not None:
            headers.append((correlation.HEADER, known.id))
        return headers

    # -- inbound -------------------------------------------------------------------------------------------------------

    def extract(self, get: Get, *, trusted: bool, context: Context | None = None) -> Inbound:
        """What the headers say that ``get`` reads by lower-case name, on top of ``context`` (default: the current one)."""
        context = get_current() if context is None else context
        return self._extract(get, trusted, context) or Inbound(context)

    @guarded
    def _extract(self, get: Get, trusted: bool, context: Context) -> Inbound:
        if not self.plain:
            return _read_chosen(get, context, trusted=trusted)
        parent = w3c.read_traceparent(get("traceparent"))
        if not trusted:
            return Inbound(context, (Link(parent),) if parent is not None else ())
        if parent is not None:
            context = Context({**context, _SPAN_KEY: NonRecordingSpan(w3c.with_state(parent, get("tracestate")))})
        for key, value in w3c.read_baggage(get("baggage")):
            context = baggage.set_baggage(key, value, context)
        return Inbound(context)

    @property
    def plain(self) -> bool:
        """Whether the global propagator is the default one, whose formats we read and write ourselves."""
        chosen = (self._get_global or self._import())()
        if chosen is not self._seen:
            self._seen = chosen
            self._plain = tuple(type(one).__name__ for one in getattr(chosen, "_propagators", ())) == _DEFAULT
        return self._plain

    def _import(self) -> Callable[[], object]:
        """The look-up of the global propagator; its module reads ``OTEL_PROPAGATORS`` when imported, and raises for an unknown name."""
        try:
            from opentelemetry import propagate
        except Exception as error:
            pass_foreign(error)
            logger.warning("OTEL_PROPAGATORS cannot be used (%s); W3C trace context and baggage are", error)
            self._get_global = lambda: None
        else:
            self._get_global = propagate.get_global_textmap
        return self._get_global


class _Getter:
    """OpenTelemetry's ``Getter`` over a function."""

    def get(self, carrier: Get, key: str) -> list[str] | None:
        value = carrier(key.lower())
        return None if value is None else [value]

    def keys(self, carrier: Get) -> list[str]:  # OpenTelemetry's signature
        return []


def _write_chosen(span: object, context: Context) -> Headers:
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier, context if span is None else Context({**context, _SPAN_KEY: span}))
    return list(carrier.items())


def _read_chosen(get: Get, context: Context, *, trusted: bool) -> Inbound:
    from opentelemetry import propagate

    found = propagate.extract(get, Context(), _Getter())  # type: ignore[arg-type]
    if trusted:
        return Inbound(Context({**context, **found}))
    span = found.get(_SPAN_KEY)
    parent = span.get_span_context() if isinstance(span, Span) else None
    return Inbound(context, (Link(parent),) if parent is not None and parent.is_valid else ())


def _known(parse: Callable[[str], Any], entries: Iterable[str], setting: str) -> list[Any]:
    found = []
    for entry in entries:
        try:
            found.append(parse(entry))
        except ValueError as error:
            logger.warning("an entry of %s is ignored: %s", setting, error)
    return found
