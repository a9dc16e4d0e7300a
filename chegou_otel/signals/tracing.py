"""Tracer and provider: the OpenTelemetry API over our spans, and a shorter way in for our own integrations."""

from __future__ import annotations

import functools
import struct
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanKind, TraceState
from opentelemetry.trace import Span as ApiSpan
from opentelemetry.trace import get_current_span as current_span
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import _forks, _guard
from chegou_otel import correlation as _correlation
from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.correlation import rng
from chegou_otel.delivery import otlp
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.signals import misuse
from chegou_otel.signals.current import CurrentSpan
from chegou_otel.signals.encoding import Encoder, Static
from chegou_otel.signals.flushing import Flushing
from chegou_otel.signals.sampling import decide, follow, judge
from chegou_otel.signals.spans import _UNSET, QuietSpan, Span, correlation_block

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextvars import Token

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Link
    from opentelemetry.util import types

    Append = Callable[[Kind, otlp.Scope | None, bytes, Priority], Any]

_SUPPRESS: Final = context_api._SUPPRESS_INSTRUMENTATION_KEY
_CORRELATION: Final = _correlation.KEY
_SAMPLED: Final = 1
_SAMPLED_RANDOM: Final = 3
_LEAF: Final = struct.Struct("<2s16s2s8s2s8scQcQ2sI").pack
_HAS_REMOTE: Final = 0x100
_new = object.__new__
_bits = rng.getrandbits


class State:
    """What all tracers of the process share, replaced as a whole by ``setup()`` and emptied by ``shutdown()``."""

    __slots__ = ("append", "armed", "encoder", "fast", "fast_remote", "fast_root", "follows", "max_events", "max_links", "processor")

    def __init__(self, append: Append, encoder: Encoder, *, fast: bool, max_events: int = 128, max_links: int = 128) -> None:
        self.append = append
        self.encoder = encoder
        #: Children of a recording local parent are always recorded: the sampler need not be asked. Nor for roots, nor for
        #: children of a sampled remote one.
        self.fast = fast
        self.fast_root = self.fast_remote = False
        #: Nor for children of what it ruled out.
        self.follows = False
        self.max_events = max_events
        self.max_links = max_links
        self.processor: Any = None
        self.armed = True


def activate(span: ApiSpan, context: Context | None = None) -> Token[Context]:
    """Make ``span`` the current one on top of ``context`` (default: the current context)."""
    told = getattr(span, "inner", span)  # a foreign span is activated as itself
    return attach(Context({**(get_current() if context is None else context), _SPAN_KEY: told}))


def deactivate(token: Token[Context]) -> None:
    """Put back what was current before :func:`activate`."""
    _correlation.reset(token)


class Tracer(sdk.Tracer):
    """The SDK's tracer to others; ``begin`` and ``leaf`` to our own integrations."""

    state: State
    scope: otlp.Scope

    def begin(
        self, static: Static, attributes: Mapping[str, Any] | None = None, start: int | None = None, *,
        context: Context | None = None, links: Sequence[Link] = (), parent: ApiSpan | None = None,
    ) -> Span | QuietSpan:  # fmt: skip
        """Start a span under ``parent``, else under the current span of ``context``. It is not made current.

        Returns a ``QuietSpan`` when the sampler says no, instrumentation is suppressed or telemetry is off.
        """
        ctx = get_current() if context is None else context
        above = parent if parent is not None else ctx.get(_SPAN_KEY, INVALID_SPAN)
        state = self.state
        if not state.armed or ctx.get(_SUPPRESS) or not self._tracer_config.is_enabled:
            return QuietSpan(above.get_span_context())  # type: ignore[attr-defined]
        span = self._under(above, static, ctx, attributes, links)
        if type(span) is QuietSpan:
            return span
        span.tracer = self
        span.static = static
        span.extra = dict(attributes) if attributes else {}
        span.correlation = ctx.get(_CORRELATION)  # type: ignore[assignment]
        span._status = _UNSET
        span._event_list = None
        span._link_list = None
        span._dropped = 0
        span._end_time = None
        span._record_exception = span._set_status_on_exception = True
        if links:
            for link in links:
                span.add_link(link.context, link.attributes)
        span._start_time = start or time_ns()
        if state.processor is not None:
            state.processor.on_start(span, parent_context=ctx)
        return span

    def _under(self, above: object, static: Static, ctx: Context, attributes: Any, links: Any) -> Span | QuietSpan:
        """A span with its identity set, or a non-recording one."""
        if type(above) is Span and self.state.fast:
            span = _new(Span)
            span.trace_bytes = above.trace_bytes
            span.parent_bytes = above.span_bytes
            span.span_bytes = _bits(64).to_bytes(8)
            span.flags = above.flags
            span._trace_state = above._trace_state
            span._parent_context = span._lazy_context = None
            return span
        if above is INVALID_SPAN and self.state.fast_root:
            span = _new(Span)
            span.trace_bytes = _bits(128).to_bytes(16)
            span.parent_bytes = b""
            span.span_bytes = _bits(64).to_bytes(8)
            span.flags = _SAMPLED_RANDOM
            span._trace_state = span._parent_context = span._lazy_context = None
            return span
        if self.state.follows and (quiet := follow(above)) is not None:
            return quiet
        parent = above.get_span_context() if isinstance(above, ApiSpan) else None
        if parent is None or not parent.is_valid:
            parent = None
        elif self.state.fast_remote and parent.is_remote and parent.trace_flags & _SAMPLED and not parent.trace_state:
            span = _new(Span)
            span.trace_bytes = parent.trace_id.to_bytes(16)
            span.parent_bytes = parent.span_id.to_bytes(8)
            span.span_bytes = _bits(64).to_bytes(8)
            span.flags = int(parent.trace_flags) & _SAMPLED_RANDOM
            span._trace_state = span._lazy_context = None
            span._parent_context = parent
            return span
        return decide(self, above, parent, static, ctx, attributes, links)

    def leaf(
        self,
        static: Static,
        start: int,
        attributes: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
        end: int | None = None,
    ) -> ApiSpan | None:
        """Record a finished span under the current one, in one call. For work in which nothing nests (SQL, Redis).

        Returns:
            The span to which a measurement of this work leads, if any: itself or the one above it.
        """
        ctx = get_current()
        above = ctx.get(_SPAN_KEY)
        state = self.state
        if type(above) is Span and state.fast and state.processor is None and error is None and above._trace_state is None:
            if state.armed and not ctx.get(_SUPPRESS):
                self._leaf(above, static, start, end or time_ns(), attributes, ctx.get(_CORRELATION))
            return above
        span = self.begin(static, attributes, start, context=ctx)
        if error is not None and type(span) is Span:
            span.fail(error)
        span.end(end)
        return span if type(span) is Span else None

    @guarded
    def _leaf(self, above: Span, static: Static, start: int, end: int, attributes: Mapping[str, Any] | None, correlation: Any) -> None:
        parts = [
            _LEAF(
                b"\x0a\x10", above.trace_bytes, b"\x12\x08", _bits(64).to_bytes(8), b"\x22\x08", above.span_bytes,
                b"\x39", start, b"\x41", end, b"\x85\x01", above.flags | _HAS_REMOTE,
            ),
            static.block,
        ]  # fmt: skip
        state = self.state
        if attributes:
            parts += state.encoder.attributes(otlp.SPAN, attributes)
        if correlation is not None:
            parts.append(correlation.span_block or correlation_block(correlation))
        body = b"".join(parts)
        state.append(Kind.SPAN, self.scope, b"\x12" + otlp.varint(len(body)) + body, Priority.NORMAL)

    # -- the API's way in ----------------------------------------------------------------------------------------------

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> ApiSpan:
        try:
            context = misuse.context(context)
            static = Static(misuse.text("the name of a span", name), misuse.kind(kind))
            told, start = misuse.fields("attributes of a span", attributes), misuse.moment("the start of a span", start_time)
            span = self.begin(static, told, start, context=context, links=misuse.links(links) if links else ())
        except Exception as error:  # a sampler of theirs must not break their work
            _guard.pass_foreign(error)
            _guard.report("chegou_otel.signals.tracing.Tracer.start_span", error)
            return NonRecordingSpan(current_span(context).get_span_context())
        if type(span) is Span:
            span._record_exception = record_exception
            span._set_status_on_exception = set_status_on_exception
        return span

    def start_as_current_span(  # type: ignore[override]
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> CurrentSpan:
        flags = (record_exception, set_status_on_exception)
        start = functools.partial(self.start_span, name, context, kind, attributes, links, start_time, *flags)
        return CurrentSpan(start, flags, end=end_on_exit)


class TracerProvider(Flushing, sdk.TracerProvider):
    """The SDK's provider with our tracers. Shutting it down switches it off; ``setup()`` switches it on again."""

    _tracers_lock = _forks.FreeLock()

    def __init__(self, state: State, resource: Resource, *, sampler: Sampler | None = None) -> None:
        with _forks.unhooked("opentelemetry."):
            super().__init__(sampler=sampler, resource=resource, span_limits=_limits(state), shutdown_on_exit=False)
        self.state = state
        judge(state, self.sampler, self.id_generator)

    def rearm(self, state: State, resource: Resource, sampler: Sampler | None) -> None:
        """A later ``setup()``: the same provider, and every tracer handed out before, with a new state."""
        self.state = state
        self._resource = resource
        if sampler is not None:
            self.sampler = sampler
        judge(state, self.sampler, self.id_generator)
        for tracer in self._tracers.values():
            tracer.state = state  # type: ignore[attr-defined]
            tracer.resource = resource
            tracer.sampler = self.sampler
        self._adopt_processors()

    def get_tracer(
        self, instrumenting_module_name: str, instrumenting_library_version: str | None = None, schema_url: str | None = None,
        attributes: types.Attributes = None,
    ) -> Any:  # fmt: skip
        tracer = super().get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        if type(tracer) is sdk.Tracer:
            # The SDK built and registered it; it becomes ours by its class, before anybody else sees it start a span.
            tracer.__class__ = Tracer
            tracer.state = self.state  # type: ignore[attr-defined]
            tracer.scope = otlp.Scope.of(  # type: ignore[attr-defined]
                instrumenting_module_name or "", instrumenting_library_version or "", schema_url or "", attributes
            )
        return tracer

    def add_span_processor(self, span_processor: sdk.SpanProcessor) -> None:
        super().add_span_processor(span_processor)
        self._adopt_processors()

    def _adopt_processors(self) -> None:
        held = getattr(self._active_span_processor, "_span_processors", ())
        self.state.processor = self._active_span_processor if held else None

    def shutdown(self) -> None:
        super().shutdown()
        self.state.armed = False


def _limits(state: State) -> sdk.SpanLimits:
    """What holds here, for whoever asks. All of it, because the SDK looks the rest up, and raises for a number that is none."""
    count, length = state.encoder.max_count, state.encoder.max_length or sdk.SpanLimits.UNSET
    return sdk.SpanLimits(
        max_attributes=count, max_span_attributes=count, max_event_attributes=count, max_link_attributes=count,
        max_events=state.max_events, max_links=state.max_links, max_attribute_length=length, max_span_attribute_length=length,
    )  # fmt: skip


__all__ = ["INVALID_SPAN", "State", "TraceState", "Tracer", "TracerProvider", "activate", "deactivate"]
