"""The ledger as metrics: what each process tells about what it recorded, sent and lost."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

import pytest

from chegou_otel.delivery.endpoints import endpoints
from chegou_otel.delivery.frames import W_CREATED, Kind, Priority
from chegou_otel.delivery.otlp import Scope, resource_block
from chegou_otel.delivery.recorder import Recorder
from chegou_otel.signals.bookkeeping import Bookkeeping
from chegou_otel.signals.metrics import Registry
from tests.delivery.items import log, span
from tests.delivery.receiver import Answer, Receiver, partial, wait_for
from tests.delivery.test_forks import ended, forked

ROOT = Path(__file__).parents[2]
SCOPE = Scope.of("tests.bookkeeping")
ALL_DOWN = Answer(status=503)


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def make(tmp_path):
    made = []

    def build(url, name="", **options):
        recorder = Recorder(
            resource_block({"service.name": "shop", "service.instance.id": name}),
            service="shop",
            spool_dir=tmp_path,
            endpoints=endpoints(url, {}),
            **options,
        )
        registry = Registry(recorder.append)
        recorder.collectors += [Bookkeeping(recorder, registry).collect, registry.collect]
        made.append(recorder)
        return recorder

    yield build
    for recorder in made:
        recorder.shutdown(0.5)


def spans(recorder, count, priority=Priority.NORMAL, size=0):
    return [recorder.append(Kind.SPAN, SCOPE, span(f"s{number}", size), priority) for number in range(count)]


def told(receiver, of=lambda resource: True):
    """Every value that each series was told with, in order: (name, what tells it from its like) → values."""
    found = defaultdict(list)
    for metric, _scope, resource in receiver.metrics:
        for point in metric.sum.data_points if of(resource) else ():
            labels = {item.key: item.value.string_value or item.value.int_value for item in point.attributes}
            which = " ".join(str(labels[key]) for key in ("chegou_otel.signal", "reason", "error.type") if key in labels)
            found[metric.name, which].append(point.as_int)
    return dict(found)


def heir(resource):
    return "heir" in [item.value.string_value for item in resource.attributes]


def last(receiver, **which):
    return {series: values[-1] for series, values in told(receiver, **which).items()}


def test_what_was_recorded_and_delivered_is_told_by_its_standard_name(make, receiver):
    recorder = make(receiver.url)
    spans(recorder, 3)
    recorder.append(Kind.LOG, SCOPE, log("hello"), Priority.INFO)
    assert recorder.flush(5)
    assert recorder.flush(5)
    found = last(receiver)
    assert found["otel.sdk.exporter.span.exported", ""] == found["otel.sdk.processor.span.processed", ""] == 3
    assert found["otel.sdk.exporter.log.exported", ""] == found["otel.sdk.log.created", ""] == 1
    assert found["chegou_otel.delivery.created", "traces"] == found["chegou_otel.delivery.delivered", "traces"] == 3
    assert found["otel.sdk.processor.span.queue.size", ""] == found["chegou_otel.delivery.held", "traces"] == 0


def test_whom_a_series_speaks_of(make, receiver):
    recorder = make(receiver.url)
    spans(recorder, 1)
    assert recorder.flush(5)
    assert recorder.flush(5)
    (point,) = next(metric for metric, _, _ in receiver.metrics if metric.name == "otel.sdk.exporter.span.exported").sum.data_points
    labels = {item.key: item.value.string_value or item.value.int_value for item in point.attributes}
    assert labels == {
        "otel.component.type": "otlp_http_span_exporter", "otel.component.name": "otlp_http_span_exporter/0",
        "server.address": "127.0.0.1", "server.port": receiver.port,
    }  # fmt: skip


def test_what_never_happened_has_no_series(make, receiver):
    recorder = make(receiver.url)
    spans(recorder, 1)
    assert recorder.flush(5)
    assert recorder.flush(5)
    assert not {name for name, which in last(receiver) if "dropped" in name or "ambiguous" in name or "rejected" in name or which}  - {
        "chegou_otel.delivery.created", "chegou_otel.delivery.delivered", "chegou_otel.delivery.held"
    }  # fmt: skip
    assert ("chegou_otel.delivery.created", "logs") not in last(receiver)


def test_what_the_receiver_rejects_is_an_export_that_failed(make, receiver):
    recorder = make(receiver.url)
    receiver.plan = [partial(1, "no room")]
    spans(recorder, 1)
    assert recorder.flush(5)
    spans(recorder, 3)
    assert recorder.flush(5)
    assert recorder.flush(5)
    found = last(receiver)
    assert found["otel.sdk.exporter.span.exported", "rejected"] == found["chegou_otel.delivery.rejected", "traces"] == 1
    assert found["otel.sdk.exporter.span.exported", ""] == 3


def test_a_drop_says_its_reason(make, receiver):
    receiver.default = ALL_DOWN
    recorder = make(receiver.url, max_bytes=128 << 10, segment_bytes=64 << 10)
    taken = spans(recorder, 40, size=4000)
    lost = taken.count(False)
    assert 0 < lost < 40
    receiver.default = Answer()
    assert recorder.flush(5)
    assert recorder.flush(5)
    found = last(receiver)
    assert found["otel.sdk.processor.span.processed", "queue_full"] == lost
    assert found["chegou_otel.delivery.dropped", "traces pressure"] == lost
    assert found["chegou_otel.delivery.created", "traces"] == 40


def test_what_is_taken_over_is_not_told_twice(make, receiver):
    """A dead process has told what it delivered. Its heir tells what it took over, and what it did with that."""
    writer = make(receiver.url)
    spans(writer, 3)
    assert writer.flush(5)
    receiver.default = ALL_DOWN
    spans(writer, 4)
    writer.shutdown(0.3)
    receiver.default = Answer()
    recorder = make(receiver.url, "heir")
    spans(recorder, 2)
    wait_for(lambda: recorder.flush(5) and recorder.ledger()["traces"].held == 0)
    assert recorder.flush(5)
    found = last(receiver, of=heir)
    assert found["chegou_otel.delivery.adopted", "traces"] == 4
    assert found["chegou_otel.delivery.created", "traces"] == 2
    assert found["chegou_otel.delivery.delivered", "traces"] == found["otel.sdk.exporter.span.exported", ""] == 6
    assert found["chegou_otel.delivery.held", "traces"] == 0


def test_no_counter_ever_goes_backwards(make, receiver):
    """Segments are used again, adopted ones are removed, and the counters move; the series only grow."""
    receiver.default = ALL_DOWN
    writer = make(receiver.url, segment_bytes=64 << 10)
    spans(writer, 30, size=4000)
    writer.shutdown(0.3)
    receiver.default = Answer()
    recorder = make(receiver.url, "heir", segment_bytes=64 << 10)
    for _ in range(10):
        spans(recorder, 20, size=4000)
        assert recorder.flush(5)
    delivered = ("chegou_otel.delivery.delivered", "traces")
    wait_for(lambda: recorder.flush(5) and last(receiver, of=heir)[delivered] == 230)
    assert last(receiver, of=heir)["chegou_otel.delivery.created", "traces"] == 200
    for (name, which), values in told(receiver, of=heir).items():
        if not name.endswith((".held", ".size")):
            assert values == sorted(values), (name, which)


def test_what_a_work_horse_records_counts_for_its_parent_whole(make, receiver):
    """Also what went into further segments of its own, which the parent finds as it would find a stranger's."""
    recorder = make(receiver.url, segment_bytes=64 << 10)
    segment = recorder.reserve()

    def work():
        recorder.become(segment)
        spans(recorder, 40, size=4000)

    assert ended(forked(work)) == 0
    recorder.drain(segment)
    created = ("chegou_otel.delivery.created", "traces")
    wait_for(lambda: recorder.flush(5) and last(receiver).get(created) == 40)
    assert recorder.flush(5)
    found = last(receiver)
    assert found["chegou_otel.delivery.delivered", "traces"] == found[created] == 40
    assert ("chegou_otel.delivery.adopted", "traces") not in found


def test_what_a_reading_lacks_is_not_told_again(make, receiver):
    """Whatever a reading misses, what was told stands, and is not added a second time."""
    recorder = make(receiver.url)
    spans(recorder, 3)
    assert recorder.flush(5)
    recorder.pool.inherited[W_CREATED + Kind.SPAN] = 2
    assert recorder.flush(5)
    recorder.pool.inherited[W_CREATED + Kind.SPAN] = 0
    spans(recorder, 1)
    assert recorder.flush(5)
    assert told(receiver)["chegou_otel.delivery.created", "traces"] == [3, 3, 4]


def test_a_forked_child_tells_its_own(receiver, tmp_path):
    source = """
        import os, chegou_otel
        from opentelemetry import trace
        telemetry = chegou_otel.setup("shop", integrations=[])
        def record(count):
            for _ in range(count):
                trace.get_tracer("x").start_span("s").end()
            assert telemetry.flush(10) and telemetry.flush(10)
        record(3)
        child = os.fork()
        if not child:
            try:
                record(2)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        record(1)
        print(os.getpid(), child)
    """
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))}
    kept.update(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, CHEGOU_OTEL_SPOOL_DIR=str(tmp_path), PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(source)], env=kept, capture_output=True, text=True, timeout=60, check=True)
    parent, child = map(int, done.stdout.split())

    def of(pid):
        return lambda resource: pid in [item.value.int_value for item in resource.attributes if item.key == "process.pid"]

    key = ("chegou_otel.delivery.delivered", "traces")
    assert told(receiver, of=of(parent))[key][-1] == 4
    assert told(receiver, of=of(child))[key][-1] == 2
