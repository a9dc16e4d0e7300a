"""Cumulative and delta: every measurement is told once, whatever lies between two collections."""

from __future__ import annotations

import functools
import operator
import os
import threading
from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import metrics

from chegou_otel import _setup
from chegou_otel.testing import capture, decode
from tests.signals.meters import Kept

BOUNDS = (0.1, 1.0, 5.0)
PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
#: A value to record, or a collection, which the spool takes or not.
STEPS = st.lists(st.one_of(st.integers(0, 8), st.sampled_from(["collect", "collect, and find the spool full"])), max_size=60)


def recorded_and_told(steps, **aggregation):
    kept = Kept(**aggregation)
    sums, buckets = kept.registry.counter("c").series(), kept.registry.histogram("h", "s", "", BOUNDS).series()
    values = []
    for step in steps:
        if isinstance(step, int):
            values.append(step)
            sums.add(step)
            buckets.record(float(step))
        else:
            kept.full = step != "collect"
            kept.registry.collect()
    kept.full = False
    kept.registry.collect()
    return values, kept.told()


@given(STEPS)
def test_the_deltas_of_any_interleaving_add_up_to_what_was_recorded(steps):
    """Sum, count and buckets, with collections that found the spool full among them."""
    values, told = recorded_and_told(steps, temporality="delta")

    sums = [metric.points[0] for metric in told if metric.name == "c"]
    histograms = [metric.points[0] for metric in told if metric.name == "h"]
    expected = [0] * (len(BOUNDS) + 1)
    for value in values:
        expected[bisect_left(BOUNDS, value)] += 1
    assert sum(point.value for point in sums) == sum(values)
    assert sum(point.count for point in histograms) == len(values)
    assert sum(point.sum for point in histograms) == sum(values)
    assert functools.reduce(lambda a, b: list(map(operator.add, a, b)), (p.buckets for p in histograms), [0] * 4) == expected


@given(STEPS)
def test_the_last_total_of_any_interleaving_is_what_was_recorded(steps):
    values, told = recorded_and_told(steps)

    last = {metric.name: metric.points[0] for metric in told}
    assert (last["c"].value, last["h"].count, last["h"].sum) == (sum(values), len(values), sum(values)) if values else last == {}


@given(STEPS)
def test_the_intervals_of_deltas_follow_each_other_without_overlap(steps):
    _, told = recorded_and_told(steps, temporality="delta")

    points = [metric.points[0] for metric in told if metric.name == "c"]
    assert all(point.start <= point.time for point in points)
    assert all(earlier.time <= later.start for earlier, later in pairwise(sorted(points, key=lambda point: point.start)))


def test_a_delta_begins_where_the_last_collection_ended_also_when_that_told_nothing_of_it():
    kept = Kept(temporality="delta")
    kept.registry.counter("always").series().add(1)
    kept.collect()
    kept.registry.counter("always").series().add(1)
    silent = kept.collect()["always"]
    kept.registry.counter("new").series().add(1)
    found = kept.collect()

    assert found["new"].points[0].start == silent.points[0].time
    assert "always" not in found


@pytest.mark.parametrize(
    ("preference", "told"),
    [
        ("cumulative", {"c": "cumulative", "h": "cumulative", "u": "cumulative", "g": ""}),
        ("delta", {"c": "delta", "h": "delta", "u": "cumulative", "g": ""}),
        ("LowMemory", {"c": "delta", "h": "delta", "u": "cumulative", "g": ""}),
        ("sometimes", {"c": "cumulative", "h": "cumulative", "u": "cumulative", "g": ""}),
    ],
)
def test_the_variable_says_what_our_instruments_tell(monkeypatch, preference, told):
    monkeypatch.setenv(PREFERENCE, preference)
    with capture() as recorded:
        own = recorded.telemetry.runtime.metrics
        for series in (own.counter("c"), own.histogram("h"), own.updown("u"), own.gauge("g")):
            series.series().record(2)
        first = recorded.metrics
        own.counter("c").series().add(1)
        own.updown("u").series().add(1)
        second = recorded.metrics

    assert {name: first[name].temporality for name in told} == told
    assert second["c"].points[0].value == (1 if told["c"] == "delta" else 3)
    assert second["u"].points[0].value == 3
    assert ("h" in second, "g" in second) == (told["h"] != "delta", True)


@pytest.mark.parametrize(
    ("preference", "told"),
    [
        ("cumulative", {"c": "cumulative", "h": "cumulative", "u": "cumulative", "oc": "cumulative", "ou": "cumulative"}),
        ("delta", {"c": "delta", "h": "delta", "u": "cumulative", "oc": "delta", "ou": "cumulative"}),
        ("lowmemory", {"c": "delta", "h": "delta", "u": "cumulative", "oc": "cumulative", "ou": "cumulative"}),
    ],
)
def test_the_variable_says_what_other_people_s_instruments_tell(monkeypatch, preference, told):
    """Also in a process in which another ``setup()`` went before."""
    monkeypatch.setenv(PREFERENCE, preference)
    meter = metrics.get_meter(f"theirs.{preference}")
    counts = iter((10, 30))
    with capture() as recorded:
        meter = metrics.get_meter(f"theirs.{preference}")
        counter = meter.create_counter("c")
        counter.add(2)
        meter.create_histogram("h").record(2)
        meter.create_up_down_counter("u").add(2)
        meter.create_observable_counter("oc", [lambda _: [metrics.Observation(next(counts))]])
        meter.create_observable_up_down_counter("ou", [lambda _: [metrics.Observation(5)]])
        first = recorded.metrics
        counter.add(1)
        second = recorded.metrics

    assert {name: first[name].temporality for name in told} == told
    assert second["c"].points[0].value == (1 if told["c"] == "delta" else 3)
    assert second["oc"].points[0].value == (20 if told["oc"] == "delta" else 30)
    if preference == "delta":
        assert second["c"].points[0].start == first["c"].points[0].time


def test_other_people_s_deltas_that_found_the_spool_full_go_out_with_the_next(monkeypatch):
    monkeypatch.setenv(PREFERENCE, "delta")
    with capture() as recorded:
        counter = metrics.get_meter("theirs.full").create_counter("full")
        reader = recorded.telemetry.runtime.meter_provider.reader
        counter.add(2)
        reader.append = lambda *_frame: False
        assert "full" not in recorded.metrics
        reader.append = recorded.take
        counter.add(3)
        before = len(recorded._frames)
        _setup.collect_metrics()
        told = [payload for _kind, scope, payload in recorded._frames[before:] if scope == "theirs.full"]

    assert [_value(payload) for payload in told] == [2, 3]


def _value(payload):
    return decode.metric(payload, "").points[0].value


def test_a_forked_child_tells_its_own_deltas_and_the_parent_its_own(monkeypatch):
    monkeypatch.setenv(PREFERENCE, "delta")
    with capture() as recorded:
        own = recorded.telemetry.runtime.metrics.counter("own").series()
        theirs = metrics.get_meter("forked").create_counter("their.own")
        own.add(7)
        theirs.add(7)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            own.add(1)
            theirs.add(2)
            found = recorded.metrics
            later = recorded.metrics
            os.write(writer, repr([found["own"].points[0].value, found["their.own"].points[0].value, "own" in later]).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        found = recorded.metrics

    assert os.read(reader, 100) == b"[1, 2, False]"
    assert (found["own"].points[0].value, found["their.own"].points[0].value) == (7, 7)


def test_threads_that_record_while_deltas_are_collected_lose_none_and_double_none():
    kept = Kept(temporality="delta")
    series = kept.registry.counter("busy").series()
    done = threading.Event()

    def collect():
        while not done.is_set():
            kept.registry.collect()

    collector = threading.Thread(target=collect)
    threads = [threading.Thread(target=lambda: [series.add(1) for _ in range(20_000)]) for _ in range(4)]
    for thread in (collector, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    collector.join()
    kept.registry.collect()

    assert sum(metric.points[0].value for metric in kept.told()) == 80_000


def test_what_a_delta_waits_with_has_a_bound():
    """The newest stay."""
    kept = Kept(temporality="delta")
    series = [kept.registry.counter("c").series((("n", "x" * 1_000 + str(n)),)) for n in range(100)]
    kept.full = True
    for _round in range(30):
        for each in series:
            each.add(1)
        kept.registry.collect()
    kept.registry.collect()
    held = sum(len(payload) for _scope, payload, _once in kept.registry._outbox._gathered)
    kept.full = False

    assert held <= 1024 * 1024
    kept.registry.collect()
    assert 5 <= len(kept.told()) < 30


def test_whoever_flushes_the_sdk_s_provider_loses_no_delta(monkeypatch):
    monkeypatch.setenv(PREFERENCE, "delta")
    with capture() as recorded:
        counter = metrics.get_meter("theirs.flushed").create_counter("flushed")
        counter.add(2)
        before = len(recorded._frames)
        metrics.get_meter_provider().force_flush()
        told = [payload for _kind, scope, payload in recorded._frames[before:] if scope == "theirs.flushed"]

    assert [_value(payload) for payload in told] == [2]
