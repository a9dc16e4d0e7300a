"""W3C trace context and baggage, read and written within limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_plus

from opentelemetry import baggage
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

_MAX_HEADER: Final = 512  # of traceparent and of tracestate
_MAX_BAGGAGE: Final = 8_192
_MAX_ENTRIES: Final = 64
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?").fullmatch
#: What of the flags has a meaning: sampled (1), and random trace ID (2). Others are not passed on.
_FLAGS: Final = 3
_KEY: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}").fullmatch
# Without the plus sign: some receivers read it as a space.
_PLAIN: Final = "!#$&'()*-./:<=>?@[]^_`{|}~"


def read_traceparent(header: str | None) -> SpanContext | None:
    """A ``traceparent`` as the specification has it; ``None`` for anything else, however near."""
    if header is None or len(header) > _MAX_HEADER:
        return None
    found = _TRACEPARENT(header.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    context = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16) & _FLAGS))
    return context if context.is_valid else None


def with_state(parent: SpanContext, header: str | None) -> SpanContext:
    """``parent`` with a ``tracestate``, when that is within its limits."""
    if not header or len(header) > _MAX_HEADER:
        return parent
    return SpanContext(parent.trace_id, parent.span_id, True, parent.trace_flags, TraceState.from_header([header]))


def read_baggage(header: str | None) -> list[tuple[str, str]]:
    """The entries of a ``baggage`` header; an over-long header says nothing, a bad entry is left out."""
    if not header or len(header) > _MAX_BAGGAGE:
        return []
    entries = []
    for entry in header.split(",")[:_MAX_ENTRIES]:
        key, found, value = entry.partition(";")[0].partition("=")
        if found and _KEY(key.strip()):
            entries.append((unquote_plus(key.strip()), unquote_plus(value.strip())))
    return entries


def write(span: Span | None, context: Context) -> list[tuple[str, str]]:
    """Headers for ``span`` and the baggage of ``context``."""
    headers: list[tuple[str, str]] = []
    told = span.get_span_context() if span is not None else None
    if told is not None and told.is_valid:
        headers.append(("traceparent", f"00-{told.trace_id:032x}-{told.span_id:016x}-{told.trace_flags & _FLAGS:02x}"))
        state = told.trace_state.to_header() if told.trace_state else ""
        if 0 < len(state) <= _MAX_HEADER:
            headers.append(("tracestate", state))
    entries = baggage.get_all(context)
    if entries:
        headers += write_baggage(entries)
    return headers


def write_baggage(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A ``baggage`` header, or none: whole entries, as many as fit."""
    written: list[str] = []
    size = 0
    for key, value in list(entries.items())[:_MAX_ENTRIES]:
        entry = f"{quote(str(key), safe='')}={quote(str(value), safe=_PLAIN)}"
        size += len(entry) + 1
        if size <= _MAX_BAGGAGE:
            written.append(entry)
    return [("baggage", ",".join(written))] if written else []
