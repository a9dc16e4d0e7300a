"""A span that is an SDK span to everybody else and costs a tenth of one.

It subclasses ``opentelemetry.sdk.trace.Span``, so ``isinstance`` checks and processors of others hold. Inside it keeps a
:class:`~chegou_otel.signals.encoding.Static` block and a small dict for what varies, and is encoded to OTLP when it ends.
Everything that few spans need (context objects, events, links, decoded attributes) is made on use.
"""

from __future__ import annotations

import logging
import struct
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from chegou_otel._guard import guarded
from chegou_otel.correlation import ATTRIBUTE
from chegou_otel.delivery import otlp
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.signals import misuse
from chegou_otel.signals.encoding import Safe, Static
from chegou_otel.signals.errors import describe, message_of, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.util import types

    from chegou_otel.correlation import Correlation
    from chegou_otel.signals.tracing import Tracer

logger = logging.getLogger("chegou_otel")

_KIND_OF: Final = list(SpanKind)
_UNSET: Final = Status(StatusCode.UNSET)
#: trace_id, span_id, start, end, flags: everything of fixed size in one call.
_FIXED: Final = struct.Struct("<2s16s2s8scQcQ2sI").pack
_FIXED64: Final = struct.Struct("<Q").pack
_FIXED32: Final = struct.Struct("<I").pack
_HAS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_FLAGS: Final = {n: TraceFlags(n) for n in range(4)}


def correlation_block(correlation: Correlation) -> bytes:
    """The encoded span attribute of a correlation ID, made once per ID."""
    block = correlation.span_block
    if block is None:
        block = otlp.attribute(otlp.SPAN, ATTRIBUTE, correlation.id)
        if correlation.source == "client":
            block += _FROM_CLIENT
        correlation.span_block = block
    return block


_FROM_CLIENT: Final = otlp.attribute(otlp.SPAN, "correlation_id.source", "client")


class Span(SdkSpan):
    """A recording span. Made by :class:`~chegou_otel.signals.tracing.Tracer` only; of its kind there is one more, ``Unsampled``."""

    # Set by Tracer.begin, one by one: calling an __init__ would cost as much as the rest of it.
    tracer: Tracer
    static: Static
    extra: dict[str, Any]
    trace_bytes: bytes
    span_bytes: bytes
    parent_bytes: bytes
    flags: int
    correlation: Correlation | None
    _parent_context: SpanContext | None
    _lazy_context: SpanContext | None
    _trace_state: TraceState | None
    _start_time: int | None
    _end_time: int | None
    _status: Status
    _event_list: list[Event] | None
    _link_list: list[Link] | None
    _dropped: int
    _record_exception: bool
    _set_status_on_exception: bool

    # -- the SDK's view, made on use -------------------------------------------------------------------------------

    def get_span_context(self) -> SpanContext:
        known = self._lazy_context
        if known is None:
            known = SpanContext(
                int.from_bytes(self.trace_bytes), int.from_bytes(self.span_bytes), False,
                _FLAGS.get(self.flags) or TraceFlags(self.flags), self._trace_state,
            )  # fmt: skip
            self._lazy_context = known
        return known

    @property
    def context(self) -> SpanContext:
        return self.get_span_context()

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]  # what inherited methods read
        return self.get_span_context()

    @property
    def name(self) -> str:
        return self.static.name

    @property
    def _name(self) -> str:  # type: ignore[override]
        return self.static.name

    @property
    def kind(self) -> SpanKind:
        return _KIND_OF[self.static.kind]

    @property
    def parent(self) -> SpanContext | None:
        if self._parent_context is None and self.parent_bytes:
            self._parent_context = SpanContext(
                int.from_bytes(self.trace_bytes), int.from_bytes(self.parent_bytes), False,
                _FLAGS.get(self.flags) or TraceFlags(self.flags), self._trace_state,
            )  # fmt: skip
        return self._parent_context

    @property
    def _parent(self) -> SpanContext | None:  # type: ignore[override]
        return self.parent

    @property
    def _attributes(self) -> dict[str, Any]:  # type: ignore[override]
        """The redacted view, decoded: what processors, exporters and the curious see."""
        seen: dict[str, Any] = {**self.static.attributes, **self.tracer.state.encoder.cleaned(dict(self.extra))}
        if self.correlation is not None:
            seen[ATTRIBUTE] = self.correlation.id
        return seen

    @property
    def _events(self) -> Sequence[Event]:  # type: ignore[override]
        clean = self.tracer.state.encoder.cleaned
        return tuple(Event(e.name, clean(e.attributes or {}), e.timestamp) for e in self._event_list or ())  # type: ignore[arg-type]

    @property
    def _links(self) -> Sequence[Link]:  # type: ignore[override]
        return tuple(self._link_list or ())

    @property
    def dropped_attributes(self) -> int:
        return self._dropped

    @property
    def _resource(self) -> Any:  # type: ignore[override]
        return self.tracer.resource

    @property
    def _instrumentation_scope(self) -> Any:  # type: ignore[override]
        return self.tracer._instrumentation_scope

    @property
    def _instrumentation_info(self) -> Any:  # type: ignore[override]
        return self.tracer.instrumentation_info

    @property
    def _limits(self) -> Any:
        return self.tracer._span_limits

    def _readable_span(self) -> ReadableSpan:
        return ReadableSpan(
            name=self.static.name, context=self.context, parent=self.parent, resource=self._resource,
            attributes=self._attributes, events=self._events, links=self._links, kind=self.kind, status=self._status,
            start_time=self._start_time, end_time=self._end_time, instrumentation_scope=self._instrumentation_scope,
        )  # fmt: skip

    # -- changing it ---------------------------------------------------------------------------------------------------

    def is_recording(self) -> bool:
        return self._end_time is None

    def _is_late(self) -> bool:
        if self._end_time is None:
            return False
        logger.debug("a span was changed after its end: %s", self.static.name)
        return True

    def set_attribute(self, key: str, value: types.AnyValue) -> None:
        if self._is_late():
            return
        if not (isinstance(key, str) and key):
            misuse.ignored("a key of a span's attributes", key)
            return
        extra = self.extra
        if len(extra) < self.tracer.state.encoder.max_count or key in extra:
            extra[key] = value
        else:
            self._dropped += 1

    def set_attributes(self, attributes: Mapping[str, types.AnyValue]) -> None:
        for key, value in misuse.fields("attributes of a span", attributes).items():
            self.set_attribute(key, value)

    def set_static(self, static: Static) -> None:
        """Replace name, kind and constant attributes in one go (a route that is known late)."""
        self.static = static

    def update_name(self, name: str) -> None:
        if not self._is_late():
            self.static = Static(misuse.text("the name of a span", name), self.static.kind, self.static.attributes)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if self._is_late():
            return
        if not isinstance(status, Status | StatusCode):
            misuse.ignored("the status of a span", status)  # type: ignore[unreachable]
            return
        new = status if isinstance(status, Status) else Status(status, description)
        if self._status.status_code is StatusCode.OK or new.status_code is StatusCode.UNSET:
            return
        self._status = new

    def add_event(self, name: str, attributes: types.Attributes = None, timestamp: int | None = None) -> None:
        if self._is_late():
            return
        if self._event_list is None:
            self._event_list = []
        if len(self._event_list) < self.tracer.state.max_events:
            fields = misuse.fields("attributes of an event", attributes)
            when = misuse.moment("the time of an event", timestamp)
            self._event_list.append(Event(misuse.text("the name of an event", name), fields, time_ns() if when is None else when))

    def add_link(self, context: SpanContext, attributes: types.Attributes = None) -> None:
        if not isinstance(context, SpanContext):
            misuse.ignored("the context of a link", context)  # type: ignore[unreachable]
            return
        if self._is_late() or not (context.is_valid or attributes or context.trace_state):
            return
        if self._link_list is None:
            self._link_list = []
        if len(self._link_list) < self.tracer.state.max_links:
            self._link_list.append(Link(context, misuse.fields("attributes of a link", attributes)))

    def record_exception(
        self, exception: BaseException, attributes: types.Attributes = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        described = describe(exception, self.tracer.state.encoder)
        if escaped:
            described["exception.escaped"] = Safe("True")
        self.add_event("exception", {**described, **misuse.fields("attributes of an event", attributes)}, timestamp)

    def fail(self, error: BaseException, *, record: bool = True) -> None:
        """Mark the span failed by ``error``; with ``record``, tell the exception as an event."""
        if record:
            self.record_exception(error)
        self.extra["error.type"] = Safe(type_name(error))
        self.set_status(Status(StatusCode.ERROR, message_of(error)))

    # -- its end -------------------------------------------------------------------------------------------------------

    def end(self, end_time: int | None = None) -> None:
        if self._end_time is not None:
            return
        if end_time is not None:
            end_time = misuse.moment("the end of a span", end_time)
        processor = self.tracer.state.processor
        if processor is None:
            self._end_time = end_time or time_ns()
            self._record()
            return
        processor._on_ending(self)
        self._end_time = end_time or time_ns()
        self._record()
        processor.on_end(self._readable_span())

    @guarded
    def _record(self) -> None:
        state = self.tracer.state
        parent, static, extra = self.parent_bytes, self.static, self.extra
        remote = _HAS_REMOTE | (_IS_REMOTE if self._parent_context is not None and self._parent_context.is_remote else 0)
        parts = [
            _FIXED(
                b"\x0a\x10", self.trace_bytes, b"\x12\x08", self.span_bytes,
                b"\x39", self._start_time, b"\x41", self._end_time, b"\x85\x01", self.flags | remote,
            ),
            b"\x22\x08" + parent if parent else b"",
            static.block,
        ]  # fmt: skip
        if extra:
            if static.attributes and not static.attributes.keys().isdisjoint(extra):
                kept = {key: value for key, value in static.attributes.items() if key not in extra}
                parts[2] = Static(static.name, static.kind, kept).block
            parts += state.encoder.attributes(otlp.SPAN, extra)
        if self.correlation is not None:
            parts.append(self.correlation.span_block or correlation_block(self.correlation))
        failed = self._status is not _UNSET and self._status.status_code is StatusCode.ERROR
        if self._status is not _UNSET or self._event_list or self._link_list or self._dropped or self._trace_state:
            parts += self._rare()
        body = b"".join(parts)
        state.append(Kind.SPAN, self.tracer.scope, b"\x12" + otlp.varint(len(body)) + body, Priority.HIGH if failed else static.priority)

    def _rare(self) -> list[bytes]:
        encoder = self.tracer.state.encoder
        parts: list[bytes] = []
        if self._trace_state:
            parts.append(otlp.text(b"\x1a", self._trace_state.to_header()))
        if self._dropped:
            parts.append(b"\x50" + otlp.varint(self._dropped))
        for event in self._event_list or ():
            fields = encoder.attributes(otlp.EVENT, event.attributes or {})
            parts.append(otlp.message(b"\x5a", b"\x09" + _FIXED64(event.timestamp) + otlp.text(b"\x12", event.name) + b"".join(fields)))
        parts += [otlp.message(b"\x6a", self._link(link)) for link in self._link_list or ()]
        if self._status is not _UNSET:
            described = self._status.description
            message = otlp.text(b"\x12", encoder.redactor.exception_message(described)) if described else b""
            parts.append(otlp.message(b"\x7a", message + b"\x18" + otlp.varint(self._status.status_code.value)))
        return parts

    def _link(self, link: Link) -> bytes:
        context = link.context
        return b"".join([
            b"\x0a\x10", context.trace_id.to_bytes(16), b"\x12\x08", context.span_id.to_bytes(8),
            otlp.text(b"\x1a", context.trace_state.to_header()) if context.trace_state else b"",
            *self.tracer.state.encoder.attributes(otlp.LINK, link.attributes or {}),
            b"\x35", _FIXED32(int(context.trace_flags) | _HAS_REMOTE | (_IS_REMOTE if context.is_remote else 0)),
        ])  # fmt: skip


@final
class QuietSpan(NonRecordingSpan):
    """What ``begin`` returns when nothing is recorded: a context that propagates, and our span's methods doing nothing."""

    #: Whatever the context says: nothing here leads to a span.
    flags: Final = 0
    #: Whether a sampler ruled it out, and with it whatever happens below.
    dropped = False

    def set_static(self, static: Static) -> None:
        """Nothing is recorded."""

    def fail(self, error: BaseException, *, record: bool = True) -> None:
        """Nothing is recorded."""
