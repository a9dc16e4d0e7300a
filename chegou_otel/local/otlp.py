"""OTLP as the local backend reads it: requests in protobuf or JSON, stored chunks, answers. The only module that knows protobuf."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from chegou_otel.local.records import KINDS, STATUSES, Event, Link, Log, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

TRACES, METRICS, LOGS = "traces", "metrics", "logs"
REQUESTS: Final[Mapping[str, Any]] = {
    TRACES: ExportTraceServiceRequest,
    METRICS: ExportMetricsServiceRequest,
    LOGS: ExportLogsServiceRequest,
}

# google.rpc.Code
INVALID_ARGUMENT: Final = 3
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

_IDS: Final = {"traceId", "spanId", "parentSpanId"}


class Malformed(ValueError):  # noqa: N818 - what the request is
    """The body is not the OTLP request that it says it is."""


def parse(signal: str, body: bytes, media_type: str = PROTOBUF) -> Any:
    """The request message of a signal."""
    from google.protobuf.message import DecodeError

    if media_type == JSON:
        return _parse_json(signal, body)
    try:
        return REQUESTS[signal].FromString(body)
    except DecodeError as error:
        raise Malformed(f"not an OTLP {signal} request in protobuf: {error}") from error


def _parse_json(signal: str, body: bytes) -> Any:
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(_with_base64_ids(_object(body)), REQUESTS[signal](), ignore_unknown_fields=True)
    except (AttributeError, json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"not an OTLP {signal} request in JSON: {error}") from error


def _object(body: bytes) -> dict[str, Any]:
    told = json.loads(body)
    if not isinstance(told, dict):
        raise TypeError("an object is expected")
    return told


def _with_base64_ids(value: Any) -> Any:
    """OTLP's JSON writes IDs in hex, where protobuf's own JSON has base64."""
    if isinstance(value, list):
        return [_with_base64_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: _base64(each) if key in _IDS and isinstance(each, str) else _with_base64_ids(each) for key, each in value.items()}


def _base64(text: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(text)).decode()
    except ValueError as error:
        raise Malformed(f"an ID is not hex: {text[:64]!r}") from error


def status(code: int, message: str, media_type: str) -> bytes:
    """google.rpc.Status, what a refused request is answered with."""
    if media_type == JSON:
        return json.dumps({"code": code, "message": message}).encode()
    text = message.encode()
    return b"\x08" + bytes([code]) + b"\x12" + _varint(len(text)) + text


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:  # noqa: PLR2004 - seven bits to a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def success(media_type: str) -> bytes:
    """An empty Export…ServiceResponse: everything was taken."""
    return b"{}" if media_type == JSON else b""


# --- values ---------------------------------------------------------------------------------------------------------------------------


def plain(value: AnyValue) -> Any:
    """An AnyValue as what JSON can say; bytes become base64."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [plain(each) for each in value.array_value.values]
    if which == "kvlist_value":
        return attributes(value.kvlist_value.values)
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if which == "double_value" and not math.isfinite(value.double_value):
        return str(value.double_value)  # JSON has no word for it
    return getattr(value, which)


def attributes(values: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as a dictionary."""
    return {each.key: plain(each.value) for each in values}


def span_records(chunk: bytes) -> Iterator[Span]:
    """The spans of a stored chunk."""
    for resource_spans in TracesData.FromString(chunk).resource_spans:
        resource = attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _span(span, scope_spans.scope.name, resource)


def _span(span: SpanMessage, scope: str, resource: dict[str, Any]) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=named(KINDS, span.kind),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status=named(STATUSES, span.status.code),
        status_message=span.status.message,
        scope=scope,
        attributes=attributes(span.attributes),
        resource=resource,
        events=tuple(Event(e.name, e.time_unix_nano, attributes(e.attributes)) for e in span.events),
        links=tuple(Link(link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


def named(names: tuple[str, ...], number: int) -> str:
    """The name of an enumeration's number; one from the future has none."""
    return names[number] if 0 <= number < len(names) else str(number)


def log_records(chunk: bytes) -> Iterator[Log]:
    """The log records of a stored chunk."""
    for resource_logs in LogsData.FromString(chunk).resource_logs:
        resource = attributes(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            for log in scope_logs.log_records:
                yield _log(log, scope_logs.scope.name, resource)


def _log(log: LogRecord, scope: str, resource: dict[str, Any]) -> Log:
    return Log(
        time=log.time_unix_nano or log.observed_time_unix_nano,
        severity=log.severity_number,
        severity_text=log.severity_text,
        body=plain(log.body),
        logger=scope,
        trace_id=log.trace_id.hex(),
        span_id=log.span_id.hex(),
        attributes=attributes(log.attributes),
        resource=resource,
    )


def otlp_json(chunk: bytes) -> list[dict[str, Any]]:
    """The resourceSpans of a stored chunk in OTLP's JSON: hex IDs, int64 as strings, enumerations as numbers."""
    from google.protobuf import json_format

    told = json_format.MessageToDict(TracesData.FromString(chunk), use_integers_for_enums=True)
    return list(_with_hex_ids(told).get("resourceSpans", []))


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_hex_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: _hex(each) if key in _IDS and isinstance(each, str) else _with_hex_ids(each) for key, each in value.items()}


def _hex(text: str) -> str:
    try:
        return base64.b64decode(text).hex()
    except binascii.Error:
        return text
