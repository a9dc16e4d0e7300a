"""When somebody set a tracer provider before us: our integrations' short way in, over their tracer.

Their provider is used and reported, never overwritten. It costs what theirs costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from chegou_otel import correlation as _correlation
from chegou_otel._context import get_current
from chegou_otel.signals.errors import describe, message_of, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context

    from chegou_otel.signals.encoding import Encoder, Static

_KINDS = list(SpanKind)


class ForeignSpan(trace.Span):
    """Their span with our span's methods. ``inner`` is what gets activated."""

    def __init__(self, inner: trace.Span, encoder: Encoder) -> None:
        self.inner = inner
        self._encoder = encoder

    def set_static(self, static: Static) -> None:
        self.inner.update_name(static.name)
        self.inner.set_attributes(dict(static.attributes))  # type: ignore[arg-type]

    def fail(self, error: BaseException, *, record: bool = True) -> None:
        if record:
            self.record_exception(error)
        self.inner.set_attribute("error.type", type_name(error))
        self.inner.set_status(Status(StatusCode.ERROR, self._encoder.redactor.exception_message(message_of(error))))

    def set_attribute(self, key: str, value: Any) -> None:
        self.inner.set_attribute(key, self._encoder.clean(key, value))  # type: ignore[arg-type]

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        self.inner.add_event("exception", {**describe(exception, self._encoder), **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        self.inner.end(end_time)

    def get_span_context(self) -> trace.SpanContext:
        return self.inner.get_span_context()

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self.inner.add_event(name, self._encoder.cleaned(attributes or {}), timestamp)  # type: ignore[arg-type]

    def add_link(self, context: trace.SpanContext, attributes: Any = None) -> None:
        self.inner.add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self.inner.update_name(name)

    def is_recording(self) -> bool:
        return self.inner.is_recording()

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self.inner.set_status(status, description)


class ForeignTracer:
    """``begin`` and ``leaf`` over a tracer that is not ours."""

    def __init__(self, tracer: trace.Tracer, encoder: Encoder) -> None:
        self._tracer = tracer
        self._encoder = encoder

    def begin(
        self, static: Static, attributes: Mapping[str, Any] | None = None, start: int | None = None, *,
        context: Context | None = None, links: Sequence[trace.Link] = (), parent: trace.Span | None = None,
    ) -> ForeignSpan:  # fmt: skip
        context = get_current() if context is None else context
        if parent is not None:
            context = trace.set_span_in_context(getattr(parent, "inner", parent), context)
        told = {**static.attributes, **self._encoder.cleaned(attributes or {})}
        known = _correlation.current(context)
        if known is not None:
            told[_correlation.ATTRIBUTE] = known.id
        inner = self._tracer.start_span(static.name, context, _KINDS[static.kind], told, links, start)  # type: ignore[arg-type]
        return ForeignSpan(inner, self._encoder)

    def leaf(
        self,
        static: Static,
        start: int,
        attributes: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
        end: int | None = None,
    ) -> ForeignSpan:
        span = self.begin(static, attributes, start)
        if error is not None:
            span.fail(error)
        span.end(end)
        return span
