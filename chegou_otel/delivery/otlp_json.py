"""OTLP in JSON, made from the protobuf bytes that everything is recorded as.

A table says what each field of each message becomes by OTLP's mapping: names in camelCase, IDs in hex, 64-bit integers as text,
enumerations as numbers, bytes in base64. The text is written message by message, with a pause after each millisecond, so no
request waits long for the interpreter while a batch is being translated.
"""

from __future__ import annotations

import base64
import functools
import math
import struct
import time
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.delivery.answers import JSON, Answer, Verdict
from chegou_otel.delivery.frames import Signal
from chegou_otel.delivery.protobuf import each_field, varints
from chegou_otel.delivery.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from chegou_otel.delivery.endpoints import Endpoint

SLICE_SECONDS: Final = 0.001
PAUSE_SECONDS: Final = 0.0001
#: Attributes repeat (methods, routes, hosts): the text of so many short ones is remembered.
_KEPT: Final = 2048
_SHORT: Final = 128
_LONG: Final = 16 * 1024

_POINT: Final = "2 startTimeUnixNano fixed64, 3 timeUnixNano fixed64"
_NUMBER: Final = "3 asDouble double, 6 asInt sfixed64"
_DISTRIBUTION: Final = f"{_POINT}, 4 count fixed64, 5 sum double"
#: Message → its fields: number, name, kind. A kind is a scalar's, or another message; ``*`` means that there may be several.
_SCHEMA: Final = {
    "Traces": "1 resourceSpans ResourceSpans*",
    "Logs": "1 resourceLogs ResourceLogs*",
    "Metrics": "1 resourceMetrics ResourceMetrics*",
    "ResourceSpans": "1 resource Resource, 2 scopeSpans ScopeSpans*, 3 schemaUrl text",
    "ResourceLogs": "1 resource Resource, 2 scopeLogs ScopeLogs*, 3 schemaUrl text",
    "ResourceMetrics": "1 resource Resource, 2 scopeMetrics ScopeMetrics*, 3 schemaUrl text",
    "ScopeSpans": "1 scope Scope, 2 spans Span*, 3 schemaUrl text",
    "ScopeLogs": "1 scope Scope, 2 logRecords LogRecord*, 3 schemaUrl text",
    "ScopeMetrics": "1 scope Scope, 2 metrics Metric*, 3 schemaUrl text",
    "Resource": "1 attributes KeyValue*, 2 droppedAttributesCount number, 3 entityRefs EntityRef*",
    "EntityRef": "1 schemaUrl text, 2 type text, 3 idKeys text*, 4 descriptionKeys text*",
    "Scope": "1 name text, 2 version text, 3 attributes KeyValue*, 4 droppedAttributesCount number",
    "KeyValue": "1 key text, 2 value AnyValue",
    "AnyValue": "1 stringValue text, 2 boolValue bool, 3 intValue int64, 4 doubleValue double, 5 arrayValue ArrayValue, "
    "6 kvlistValue KeyValueList, 7 bytesValue base64",
    "ArrayValue": "1 values AnyValue*",
    "KeyValueList": "1 values KeyValue*",
    "Span": "1 traceId hex, 2 spanId hex, 3 traceState text, 4 parentSpanId hex, 16 flags fixed32, 5 name text, 6 kind number, "
    "7 startTimeUnixNano fixed64, 8 endTimeUnixNano fixed64, 9 attributes KeyValue*, 10 droppedAttributesCount number, 11 events Event*, "
    "12 droppedEventsCount number, 13 links Link*, 14 droppedLinksCount number, 15 status Status",
    "Event": "1 timeUnixNano fixed64, 2 name text, 3 attributes KeyValue*, 4 droppedAttributesCount number",
    "Link": "1 traceId hex, 2 spanId hex, 3 traceState text, 4 attributes KeyValue*, 5 droppedAttributesCount number, 6 flags fixed32",
    "Status": "2 message text, 3 code number",
    "LogRecord": "1 timeUnixNano fixed64, 11 observedTimeUnixNano fixed64, 2 severityNumber number, 3 severityText text, 5 body AnyValue, "
    "6 attributes KeyValue*, 7 droppedAttributesCount number, 8 flags fixed32, 9 traceId hex, 10 spanId hex, 12 eventName text",
    "Metric": "1 name text, 2 description text, 3 unit text, 5 gauge Gauge, 7 sum Sum, 9 histogram Histogram, "
    "10 exponentialHistogram ExponentialHistogram, 11 summary Summary, 12 metadata KeyValue*",
    "Gauge": "1 dataPoints NumberPoint*",
    "Sum": "1 dataPoints NumberPoint*, 2 aggregationTemporality number, 3 isMonotonic bool",
    "Histogram": "1 dataPoints HistogramPoint*, 2 aggregationTemporality number",
    "ExponentialHistogram": "1 dataPoints ExponentialPoint*, 2 aggregationTemporality number",
    "Summary": "1 dataPoints SummaryPoint*",
    "NumberPoint": f"7 attributes KeyValue*, {_POINT}, 4 asDouble double, 6 asInt sfixed64, 5 exemplars Exemplar*, 8 flags number",
    "HistogramPoint": f"9 attributes KeyValue*, {_DISTRIBUTION}, 6 bucketCounts fixed64*, 7 explicitBounds double*, "
    "8 exemplars Exemplar*, 10 flags number, 11 min double, 12 max double",
    "ExponentialPoint": f"1 attributes KeyValue*, {_DISTRIBUTION}, 6 scale sint32, 7 zeroCount fixed64, 8 positive Buckets, "
    "9 negative Buckets, 10 flags number, 11 exemplars Exemplar*, 12 min double, 13 max double, 14 zeroThreshold double",
    "Buckets": "1 offset sint32, 2 bucketCounts uint64*",
    "SummaryPoint": f"7 attributes KeyValue*, {_DISTRIBUTION}, 6 quantileValues Quantile*, 8 flags number",
    "Quantile": "1 quantile double, 2 value double",
    "Exemplar": f"7 filteredAttributes KeyValue*, 2 timeUnixNano fixed64, {_NUMBER}, 4 spanId hex, 5 traceId hex",
}
_REQUESTS: Final = {Signal.TRACES: "Traces", Signal.LOGS: "Logs", Signal.METRICS: "Metrics"}


def _text(value: bytes) -> str:
    return encode_basestring(value.decode("utf-8", "replace"))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _number(value: int) -> str:
    """An enumeration or another 32-bit integer."""
    return str(_signed(value))


def _double(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _packed(form: str, render: Callable[[Any], str]) -> Callable[[bytes], str]:
    """One value of fixed size, or several in a row."""
    unpack = struct.Struct(form).iter_unpack
    return lambda value: ",".join([render(each) for (each,) in unpack(value)])


def _uint64s(value: int | bytes) -> str:
    return ",".join(f'"{each}"' for each in ((value,) if isinstance(value, int) else varints(value)))


_SCALARS: Final[dict[str, Callable[[Any], str]]] = {
    "text": _text,
    "hex": lambda value: f'"{value.hex()}"',
    "base64": lambda value: f'"{base64.b64encode(value).decode()}"',
    "bool": lambda value: "true" if value else "false",
    "number": _number,
    "sint32": lambda value: str((value >> 1) ^ -(value & 1)),
    "int64": lambda value: f'"{_signed(value)}"',
    "uint64": _uint64s,
    "fixed32": _packed("<I", str),
    "fixed64": _packed("<Q", '"{}"'.format),
    "sfixed64": _packed("<q", '"{}"'.format),
    "double": _packed("<d", _double),
}


class _Pace:
    """Lets other threads run after each slice of work; at the deadline it is over."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._until = time.monotonic() + SLICE_SECONDS

    def check(self) -> None:
        now = time.monotonic()
        if now < self._until:
            return
        if now > self._deadline:
            raise TimeoutError("the deadline has passed")
        time.sleep(PAUSE_SECONDS)
        self._until = time.monotonic() + SLICE_SECONDS


class _Message:
    """Writes one kind of message."""

    def __init__(self, *, keep: bool) -> None:
        #: By number: the name as it is written, how a scalar is written, or what writes a message, and whether there may be several.
        self.fields: dict[int, tuple[str, Callable[[Any], str] | None, _Message | None, bool]] = {}
        self._kept: dict[bytes, str] | None = {} if keep else None

    def put(self, data: bytes, out: bytearray, pace: _Pace) -> None:
        """Append the message. Of a long one, piece by piece: to join a lot of text takes long, too."""
        if len(data) <= _LONG:
            out += self.write(data, pace).encode()
            return
        found: dict[int, list[Any]] = {}
        for number, value in each_field(data):
            found.setdefault(number, []).append(value)
            pace.check()
        comma = b"{"
        for number in [each for each in found if each in self.fields]:
            name, scalar, message, many = self.fields[number]
            out += comma + name.encode()
            comma = b"["
            for value in found[number] if many else found[number][-1:]:
                if many:
                    out += comma
                if message is not None:
                    message.put(value, out, pace)
                else:
                    out += scalar(value).encode()  # type: ignore[misc]
                comma = b","
            if many:
                out += b"]"
        out += b"{}" if comma == b"{" else b"}"

    def write(self, data: bytes, pace: _Pace) -> str:
        """A short message, or one of a long message's."""
        kept = self._kept if len(data) <= _SHORT else None
        if kept is not None and (known := kept.get(data)) is not None:
            return known
        pace.check()
        several: dict[str, list[str]] = {}
        found: dict[str, str] = {}
        for number, value in each_field(data):
            field = self.fields.get(number)
            if field is None:
                continue
            name, scalar, message, many = field
            text = scalar(value) if scalar is not None else message.write(value, pace)  # type: ignore[union-attr, arg-type]
            if many:
                several.setdefault(name, []).append(text)
            else:
                found[name] = text
        for name, texts in several.items():
            found[name] = f"[{','.join(texts)}]"
        written = "{" + ",".join([name + text for name, text in found.items()]) + "}"
        if kept is not None:
            if len(kept) >= _KEPT:
                kept.clear()
            kept[data] = written
        return written


@functools.cache
def _messages() -> dict[str, _Message]:
    made = {name: _Message(keep=name == "KeyValue") for name in _SCHEMA}
    for name, text in _SCHEMA.items():
        for spec in text.split(", "):
            number, field, kind = spec.split()
            plain = kind.rstrip("*")
            made[name].fields[int(number)] = (f'"{field}":', _SCALARS.get(plain), made.get(plain), kind != plain)
    return made


def translate(signal: Signal, body: bytes, deadline: float) -> bytearray:
    """An export request in JSON.

    Raises:
        ValueError: ``body`` is none in protobuf.
        TimeoutError: the deadline passed on the way.
    """
    out = bytearray()
    _messages()[_REQUESTS[signal]].put(body, out, _Pace(deadline))
    return out


class JsonTransport(Transport):
    content_type = JSON

    def __init__(self, signal: Signal, endpoint: Endpoint, connections: dict[Any, Any]) -> None:
        super().__init__(endpoint, connections)
        self._signal = signal
        _messages()

    def send(self, body: bytes, deadline: float) -> Answer:
        try:
            told = translate(self._signal, body, deadline)
        except TimeoutError as error:
            return Answer(Verdict.UNSENT, str(error))
        except (ValueError, struct.error, RecursionError) as error:
            return Answer(Verdict.REJECTED, f"cannot be told in JSON: {error}")
        return self._post(told, deadline)
