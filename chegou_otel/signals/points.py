"""Metrics on the wire: one ``Metric`` message with its data points, from our own series or from the SDK's."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import export

from chegou_otel.delivery import otlp
from chegou_otel.signals import exemplars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DELTA: Final = 1
CUMULATIVE: Final = 2
_FIXED64: Final = struct.Struct("<Q").pack
_SIGNED64: Final = struct.Struct("<q").pack
_DOUBLE: Final = struct.Struct("<d").pack
_TIMES: Final = struct.Struct("<cQcQ").pack


def metric(name: str, unit: str, description: str, data: bytes) -> bytes:
    """A ``Metric`` as the repeated field of its scope container."""
    head = otlp.text(b"\x0a", name) + (otlp.text(b"\x12", description) if description else b"")
    return otlp.message(b"\x12", head + (otlp.text(b"\x1a", unit) if unit else b"") + data)


def number(block: bytes, start: int, now: int, value: float, examples: bytes = b"") -> bytes:
    """A ``NumberDataPoint``; ``block`` holds its encoded attributes, ``examples`` its exemplars."""
    encoded = b"\x31" + _SIGNED64(value) if type(value) is int else b"\x21" + _DOUBLE(value)
    return otlp.message(b"\x0a", block + _TIMES(b"\x11", start, b"\x19", now) + encoded + examples)


def sum_of(points: Iterable[bytes], *, monotonic: bool, temporality: int = CUMULATIVE) -> bytes:
    body = b"".join(points) + b"\x10" + otlp.varint(temporality) + (b"\x18\x01" if monotonic else b"")
    return otlp.message(b"\x3a", body)


def gauge_of(points: Iterable[bytes]) -> bytes:
    return otlp.message(b"\x2a", b"".join(points))


def histogram_point(
    block: bytes, start: int, now: int, count: int, total: float, low: float, high: float, buckets: Sequence[int], bounds: bytes,
    examples: bytes = b"",
) -> bytes:  # fmt: skip
    """A ``HistogramDataPoint``; ``bounds`` is the encoded field of its boundaries (:func:`bounds_field`)."""
    counts = struct.pack(f"<{len(buckets)}Q", *buckets)
    ends = b"\x59" + _DOUBLE(low) + b"\x61" + _DOUBLE(high) if count else b""
    return otlp.message(
        b"\x0a",
        block + _TIMES(b"\x11", start, b"\x19", now) + b"\x21" + _FIXED64(count) + b"\x29" + _DOUBLE(total)
        + otlp.message(b"\x32", counts) + bounds + examples + ends,
    )  # fmt: skip


def bounds_field(bounds: Sequence[float]) -> bytes:
    return otlp.message(b"\x3a", struct.pack(f"<{len(bounds)}d", *bounds))


def histogram_of(points: Iterable[bytes], temporality: int = CUMULATIVE) -> bytes:
    return otlp.message(b"\x4a", b"".join(points) + b"\x10" + otlp.varint(temporality))


def from_sdk(found: export.Metric, clean: Any) -> bytes | None:
    """An SDK ``Metric`` on the wire; ``None`` when it has no points. ``clean(attributes)`` redacts."""
    data: Any = found.data
    make = _SDK.get(type(data))
    if make is None or not data.data_points:
        return None
    return metric(found.name, found.unit or "", found.description or "", make(data, clean))


def _block(tag: bytes, attributes: Mapping[str, object] | None, clean: Any) -> bytes:
    return otlp.attributes(tag, clean(attributes or {}))


def _numbers(data: Any, clean: Any) -> list[bytes]:
    return [
        number(
            _block(otlp.NUMBER_POINT, p.attributes, clean), p.start_time_unix_nano or 0, p.time_unix_nano, p.value,
            exemplars.from_sdk(exemplars.NUMBER, p.exemplars),
        )
        for p in data.data_points
    ]  # fmt: skip


def _sdk_histogram(data: Any, clean: Any) -> bytes:
    points = [
        histogram_point(
            _block(otlp.HISTOGRAM_POINT, p.attributes, clean), p.start_time_unix_nano, p.time_unix_nano, p.count, p.sum, p.min, p.max,
            p.bucket_counts, bounds_field(p.explicit_bounds), exemplars.from_sdk(exemplars.HISTOGRAM, p.exemplars),
        )
        for p in data.data_points
    ]  # fmt: skip
    return histogram_of(points, data.aggregation_temporality.value)


def _zigzag(value: int) -> bytes:
    return otlp.varint((value << 1 ^ value >> 31) & 0xFFFFFFFF)


def _buckets(tag: bytes, buckets: Any) -> bytes:
    counts = b"".join(otlp.varint(n) for n in buckets.bucket_counts)
    return otlp.message(tag, b"\x08" + _zigzag(buckets.offset) + otlp.message(b"\x12", counts))


def _sdk_exponential(data: Any, clean: Any) -> bytes:
    points = [
        otlp.message(
            b"\x0a",
            _block(b"\x0a", p.attributes, clean) + _TIMES(b"\x11", p.start_time_unix_nano, b"\x19", p.time_unix_nano)
            + b"\x21" + _FIXED64(p.count) + b"\x29" + _DOUBLE(p.sum) + b"\x30" + _zigzag(p.scale) + b"\x39" + _FIXED64(p.zero_count)
            + _buckets(b"\x42", p.positive) + _buckets(b"\x4a", p.negative)
            + exemplars.from_sdk(exemplars.EXPONENTIAL, p.exemplars) + b"\x61" + _DOUBLE(p.min) + b"\x69" + _DOUBLE(p.max),
        )
        for p in data.data_points
    ]  # fmt: skip
    return otlp.message(b"\x52", b"".join(points) + b"\x10" + otlp.varint(data.aggregation_temporality.value))


_SDK: Final[dict[type, Any]] = {
    export.Sum: lambda data, clean: sum_of(
        _numbers(data, clean), monotonic=data.is_monotonic, temporality=data.aggregation_temporality.value
    ),
    export.Gauge: lambda data, clean: gauge_of(_numbers(data, clean)),
    export.Histogram: _sdk_histogram,
    export.ExponentialHistogram: _sdk_exponential,
}
