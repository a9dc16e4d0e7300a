"""Metrics: our own series, other people's meters, forks and work-horses."""

from __future__ import annotations

import os
import threading

from opentelemetry import metrics

from chegou_otel.delivery.frames import Kind


def registry(telemetry):
    return telemetry.telemetry.runtime.metrics


def test_a_histogram_counts_sums_and_sorts_into_buckets(telemetry):
    series = registry(telemetry).histogram("h", "s", "Help.", (0.1, 1.0)).series((("k", "v"),))
    for value in (0.05, 0.1, 0.5, 7.0):
        series.record(value)

    found = telemetry.metrics["h"]
    (point,) = found.points
    assert (found.kind, found.unit, point.attributes, point.count, point.sum) == ("histogram", "s", {"k": "v"}, 4, 7.65)
    assert (point.buckets, point.bounds) == ((2, 1, 1), (0.1, 1.0))


def test_counters_add_up_over_collections_and_gauges_keep_the_last(telemetry):
    own = registry(telemetry)
    own.counter("c").series().add(2)
    own.gauge("g").series().record(5)
    own.updown("u").series().add(3)
    first = telemetry.metrics
    own.counter("c").series().add(1)
    own.gauge("g").series().record(4)
    own.updown("u").series().add(-2)
    second = telemetry.metrics

    assert [m["c"].points[0].value for m in (first, second)] == [2, 3]
    assert [m["g"].points[0].value for m in (first, second)] == [5, 4]
    assert [m["u"].points[0].value for m in (first, second)] == [3, 1]
    assert (first["c"].monotonic, first["u"].monotonic) == (True, False)


def test_threads_lose_no_count(telemetry):
    series = registry(telemetry).counter("busy").series()
    threads = [threading.Thread(target=lambda: [series.add(1) for _ in range(20_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert telemetry.metrics["busy"].points[0].value == 80_000


def test_past_2000_series_the_rest_share_one(telemetry):
    instrument = registry(telemetry).counter("wide")
    for n in range(2_500):
        instrument.series((("n", n),)).add(1)

    points = telemetry.metrics["wide"].points
    overflow = [point.value for point in points if point.attributes == {"otel.metric.overflow": True}]
    assert len(points) == 2_001
    assert overflow == [500]


def test_other_people_s_meters_arrive(telemetry):
    meter = metrics.get_meter("theirs", "1")
    meter.create_counter("their.count", "1", "Help.").add(3, {"k": "v"})
    meter.create_histogram("their.times").record(2.0)
    meter.create_observable_gauge("their.gauge", [lambda _: [metrics.Observation(9)]])

    found = telemetry.metrics
    assert (found["their.count"].points[0].value, found["their.count"].scope) == (3, "theirs")
    assert found["their.times"].points[0].count == 1
    assert found["their.gauge"].points[0].value == 9


def test_a_forked_child_counts_from_zero(telemetry):
    """What the parent counted is the parent's: nothing is told twice."""
    own = registry(telemetry).counter("parent").series()
    theirs = metrics.get_meter("x").create_counter("parent.too")
    own.add(7)
    theirs.add(7)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        own.add(1)
        theirs.add(1)
        found = telemetry.metrics
        os.write(writer, f"{found['parent'].points[0].value} {found['parent.too'].points[0].value}".encode())
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reader, 100) == b"1 1"
    assert telemetry.metrics["parent"].points[0].value == 7


def test_in_a_work_horse_measurements_cross_and_the_parent_adds_them_up(telemetry):
    """One series in the parent, whatever number of children measured."""
    runtime = telemetry.telemetry.runtime
    frames = []
    runtime.metrics.append = runtime.meter_provider.reader.append = lambda kind, _scope, payload, _rank: frames.append((kind, payload))
    runtime.metrics.cross_to_parent()
    runtime.meter_provider.cross_to_parent()
    runtime.metrics.histogram("jobs", "s", "", (1.0,)).series((("q", "default"),)).record(0.5)
    metrics.get_meter("theirs").create_counter("their.jobs").add(2, {"k": "v"})
    assert [kind for kind, _ in frames] == [Kind.MEASUREMENT] * 2

    runtime.metrics.cross = runtime.meter_provider.consumer.crossing = None
    runtime.metrics.append = runtime.meter_provider.reader.append = telemetry.take
    for _, payload in frames * 3:
        runtime.replay(payload)

    found = telemetry.metrics
    assert [(point.attributes, point.count) for point in found["jobs"].points] == [({"q": "default"}, 3)]
    assert [(point.attributes, point.value) for point in found["their.jobs"].points] == [({"k": "v"}, 6)]
