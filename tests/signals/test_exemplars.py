"""Exemplars: from a metric's point to the trace of one of the measurements in it."""

from __future__ import annotations

import time

import pytest
from opentelemetry import metrics, trace
from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics

from chegou_otel.delivery.frames import Kind
from chegou_otel.signals.encoding import Static
from chegou_otel.testing import capture

FILTER = "OTEL_METRICS_EXEMPLAR_FILTER"


def under_a_span(recorded, record, context=None):
    """Calls ``record(span)`` under a span of ours; its IDs."""
    tracer = recorded.telemetry.runtime.tracer("tests")
    span = tracer.begin(Static("work"), context=context)
    with trace.use_span(span):
        record(span)
    span.end()
    context = span.get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}")


def ids(point):
    return [(exemplar.trace_id, exemplar.span_id) for exemplar in point.exemplars]


@pytest.fixture
def histogram(telemetry):
    return telemetry.telemetry.runtime.metrics.histogram("h", "s", "", (0.1, 1.0))


def test_a_measurement_leads_to_its_span(telemetry, histogram):
    before = time.time_ns()
    where = under_a_span(telemetry, lambda span: histogram.series().record(0.5, span))

    (point,) = telemetry.metrics["h"].points
    (exemplar,) = point.exemplars
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (0.5, *where)
    assert before <= exemplar.time <= time.time_ns()


def test_each_bucket_keeps_the_first_of_a_collection(telemetry, histogram):
    """One slow measurement among many fast ones is found."""
    series = histogram.series()
    first = under_a_span(telemetry, lambda span: series.record(0.01, span))
    under_a_span(telemetry, lambda span: [series.record(0.01, span) for _ in range(500)])
    slow = under_a_span(telemetry, lambda span: series.record(7.0, span))
    under_a_span(telemetry, lambda span: [series.record(0.01, span) for _ in range(500)])
    found = telemetry.metrics["h"].points[0]
    again = telemetry.metrics["h"].points[0]
    later = under_a_span(telemetry, lambda span: series.record(0.02, span))

    assert (found.count, ids(found)) == (1002, [first, slow])
    assert (again.count, again.exemplars) == (1002, ())
    assert ids(telemetry.metrics["h"].points[0]) == [later]


def test_a_counter_keeps_one(telemetry):
    series = telemetry.telemetry.runtime.metrics.counter("c").series()
    where = under_a_span(telemetry, lambda span: series.add(2, span))
    under_a_span(telemetry, lambda span: series.add(3, span))

    (point,) = telemetry.metrics["c"].points
    assert (point.value, point.exemplars[0].value, ids(point)) == (5, 2, [where])


def test_what_is_not_sampled_is_no_exemplar(telemetry, histogram):
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0)))
    under_a_span(telemetry, lambda span: histogram.series().record(0.5, span), trace.set_span_in_context(unsampled))
    histogram.series().record(0.5)

    (point,) = telemetry.metrics["h"].points
    assert (point.count, point.exemplars) == (2, ())


@pytest.mark.parametrize(
    ("word", "traced", "untraced"), [("trace_based", 1, 0), ("always_on", 1, 1), ("always_off", 0, 0), ("", 1, 0), ("nonsense", 1, 0)]
)
def test_the_variable_says_which(monkeypatch, word, traced, untraced):
    """Ours and other people's."""
    monkeypatch.setenv(FILTER, word)
    with capture() as recorded:
        own = recorded.telemetry.runtime.metrics.histogram("h")
        theirs = metrics.get_meter("theirs").create_histogram(f"their.{word}.h")
        own.series((("k", "untraced"),)).record(0.5)
        theirs.record(0.5, {"k": "untraced"})
        where = under_a_span(recorded, lambda span: (own.series((("k", "traced"),)).record(0.5, span), theirs.record(0.5, {"k": "traced"})))
        found = recorded.metrics

    for name in ("h", f"their.{word}.h"):
        points = {point.attributes["k"]: point for point in found[name].points}
        assert ids(points["traced"]) == [where] * traced, name
        assert ids(points["untraced"]) == [("", "")] * untraced, name


def test_other_people_s_counters_and_exponential_histograms_have_them(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram")
    with capture() as recorded:
        meter = metrics.get_meter("theirs.exponential")
        where = under_a_span(recorded, lambda _span: (meter.create_counter("c").add(2), meter.create_histogram("h").record(0.5)))
        recorded.telemetry.runtime.metrics.histogram("own").series().record(0.5)
        found = recorded.metrics

    assert (found["h"].kind, ids(found["h"].points[0])) == ("exponential_histogram", [where])
    assert (found["c"].points[0].exemplars[0].value, ids(found["c"].points[0])) == (2, [where])
    assert found["own"].kind == "histogram"


def test_what_a_work_horse_measured_leads_to_its_job(telemetry):
    """The exemplar crosses with the measurement: ours, and other people's."""
    runtime = telemetry.telemetry.runtime
    frames = []
    take = runtime.metrics.append
    runtime.metrics.append = runtime.meter_provider.reader.append = lambda kind, _scope, payload, _rank: frames.append((kind, payload))
    runtime.metrics.cross_to_parent()
    runtime.meter_provider.cross_to_parent()

    def measure(span):
        runtime.metrics.histogram("jobs").series().record(0.5, span)
        metrics.get_meter("theirs").create_histogram("their.jobs").record(0.5)
        metrics.get_meter("theirs").create_counter("their.count").add(1)

    where = under_a_span(telemetry, measure)
    runtime.metrics.histogram("jobs").series().record(0.5)
    assert [kind for kind, _ in frames] == [Kind.MEASUREMENT] * 4

    runtime.metrics.cross = runtime.meter_provider.consumer.crossing = None
    runtime.metrics.append = runtime.meter_provider.reader.append = take
    for _, payload in frames:
        runtime.replay(payload)
    found = telemetry.metrics

    assert (found["jobs"].points[0].count, ids(found["jobs"].points[0])) == (2, [where])
    assert ids(found["their.jobs"].points[0]) == ids(found["their.count"].points[0]) == [where]


def test_they_are_what_opentelemetry_s_own_messages_say(telemetry, histogram):
    """Upstream's protobuf reads the same, number and histogram alike."""
    own = telemetry.telemetry.runtime.metrics
    where = under_a_span(telemetry, lambda span: (histogram.series().record(0.5, span), own.counter("c").series().add(2, span)))
    found = telemetry.metrics
    frames = [payload for kind, _scope, payload in telemetry._frames if kind is Kind.METRIC]
    read = {metric.name: metric for metric in ScopeMetrics.FromString(b"".join(frames)).metrics}

    (timed,) = read["h"].histogram.data_points[0].exemplars
    (counted,) = read["c"].sum.data_points[0].exemplars
    assert (timed.as_double, counted.as_int) == (0.5, 2)
    assert {(each.trace_id.hex(), each.span_id.hex()) for each in (timed, counted)} == {where}
    assert timed.time_unix_nano == found["h"].points[0].exemplars[0].time
    assert not timed.filtered_attributes
