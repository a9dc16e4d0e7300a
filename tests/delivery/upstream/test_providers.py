"""What OpenTelemetry promises of its providers, readers and processors of processors, by the names of its tests: the end, flushes, forks."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from chegou_otel.delivery.endpoints import endpoints
from chegou_otel.delivery.recorder import Recorder
from tests.delivery.items import RESOURCE, metric
from tests.delivery.receiver import HANG, Answer, wait_for
from tests.delivery.upstream.conftest import SIGNALS
from tests.e2e.accounting import attributes

RECORD = {
    "traces": "from opentelemetry import trace\nprovider = trace.get_tracer_provider()\nrecord = lambda name: provider.get_tracer('t').start_span(name).end()\n",
    "logs": "import logging\nfrom opentelemetry import _logs\nprovider = _logs.get_logger_provider()\nrecord = lambda name: logging.getLogger('t').warning(name)\n",
    "metrics": "from opentelemetry import metrics\nprovider = metrics.get_meter_provider()\n"
    "record = lambda name: provider.get_meter('t').create_counter(name).add(1)\n",
}  # fmt: skip


@pytest.fixture(params=RECORD)
def row(request):
    return request.param


def arrived(receiver, row):
    """What the program recorded, without what we tell of ourselves."""
    telemetry = next(each for each in SIGNALS.values() if each.row == row)
    return [name for name in telemetry.arrived(receiver) if name.startswith(("it ", "it."))]


def test_shutdown(run, receiver, row):
    """Promised: a program that ends without a word sends what it recorded; one that shuts down by itself does so once."""
    for end in ("", "chegou_otel.shutdown()", "telemetry.shutdown(); provider.shutdown()"):
        run(f"{RECORD[row]}record('it.was')\n{end}")

    assert arrived(receiver, row) == ["it.was"] * 3


def test_shutdown_subsequent_calls(run, receiver, row):
    """Promised: once shut down, always shut down: no exception, and nothing recorded."""
    run(f"{RECORD[row]}record('it.was')\nchegou_otel.shutdown()\nprovider.shutdown()\nprovider.shutdown()\nrecord('it.came.late')")

    assert arrived(receiver, row) == ["it.was"]


def test_simple_log_record_processor_shutdown(run, receiver):
    """Promised: lines of code that logs on after the end harm nobody and are not sent."""
    run(f"{RECORD['logs']}record('it was')\nprovider.shutdown()\nchegou_otel.shutdown()\nrecord('it came late')")

    assert arrived(receiver, "logs") == ["it was"]


def test_shutdown_race(make, receiver, scope):
    """Promised: of many threads that shut down at once one does it, and none waits for ever or fails."""
    recorder = make(receiver.url)
    SIGNALS["spans"].record(recorder, scope, *[f"item {number}" for number in range(100)])

    with ThreadPoolExecutor(70) as pool:
        list(pool.map(lambda _: recorder.shutdown(10), range(70)))

    assert receiver.counts() == {f"item {number}": 1 for number in range(100)}
    account = recorder.ledger()["traces"]
    assert (account.created, account.delivered, account.held) == (100, 100, 0)


def test_meter_provider_shutdown_cleans_up_successfully(receiver, tmp_path):
    """Promised: with the end everything can be collected: what asks for metrics, too."""
    recorder = Recorder(RESOURCE, service="shop", spool_dir=tmp_path, endpoints=endpoints(receiver.url, {}))

    def collect():
        return None

    recorder.collectors.append(collect)
    recorder.start()
    known = [weakref.ref(each) for each in (recorder, recorder.courier, collect)]
    recorder.shutdown(5)

    del recorder, collect

    wait_for(lambda: (gc.collect(), [each() for each in known] == [None] * 3)[1], 5)


@pytest.mark.parametrize("more", ["", ", 'it.too'"])
def test_force_flush(run, receiver, row, more):
    """Promised: after ``force_flush`` of a provider it is there, and the answer is true. Leaving at once then costs nothing."""
    run(f"{RECORD[row]}[record(each) for each in ('it.was'{more},)]\nassert provider.force_flush(10_000) is True\nos._exit(0)")

    assert set(arrived(receiver, row)) == ({"it.was", "it.too"} if more else {"it.was"})


def test_force_flush_late_by_timeout(run, receiver, row):
    """Promised: with a receiver that hangs the answer is false, and comes in time."""
    receiver.default = HANG
    run(
        f"{RECORD[row]}import time\nrecord('it.was')\nbegin = time.monotonic()\n"
        "assert provider.force_flush(500) is False\nassert time.monotonic() - begin < 1.5\nchegou_otel.shutdown(0)"
    )


def test_force_flush_late_by_span_processor(make, receiver, scope):
    """Promised: one that fails makes the answer false, and the others are flushed all the same."""
    receiver.default = lambda message: Answer(404) if "resource_logs" in message.DESCRIPTOR.fields_by_name else Answer()
    recorder = make(receiver.url)
    for each in SIGNALS.values():
        each.record(recorder, scope, "item")

    assert recorder.flush(1.0) is False

    assert [each.arrived(receiver) for each in SIGNALS.values()] == [["item"], [], ["item"]]


def test_force_flush_default_processor(run, row):
    """Promised: with nothing to do the answer is true."""
    run(f"{RECORD[row]}assert provider.force_flush(5_000) is True")


def test_force_flush_delayed(run, receiver, row):
    """Promised: processors that the user added are flushed within the same time, and before ours."""
    added = {
        "traces": "from opentelemetry.sdk.trace import SpanProcessor as Base\nadd = provider.add_span_processor\n",
        "logs": "from opentelemetry.sdk._logs import LogRecordProcessor as Base\nadd = provider.add_log_record_processor\n",
    }
    if row not in added:
        pytest.skip("a provider of meters takes its readers when it is made")
    body = (
        "asked = []\n"
        "class Mine(Base):\n"
        "    def on_emit(self, record): pass\n"
        "    def shutdown(self): pass\n"
        "    def force_flush(self, timeout_millis=30_000):\n"
        "        asked.append(timeout_millis)\n"
        "        return False\n"
        "add(Mine())\nrecord('it.was')\nassert provider.force_flush(5_000) is False and len(asked) == 1\nos._exit(0)"
    )
    run(RECORD[row] + added[row] + body)

    assert arrived(receiver, row) == ["it.was"]


def test_batch_span_processor_fork(run, receiver, row):
    """Promised: recording works in a child of ``multiprocessing``, and in the parent before and after it."""
    run(
        f"""{RECORD[row]}
import multiprocessing
record('it.before')
def child():
    record('it.child')
    assert provider.force_flush(10_000)
process = multiprocessing.get_context('fork').Process(target=child)
process.start()
process.join(20)
assert process.exitcode == 0
record('it.after')
assert provider.force_flush(10_000)
"""
    )

    assert set(arrived(receiver, row)) == {"it.before", "it.child", "it.after"}


def test_detect_fork_generates_new_id(run, receiver, row):
    """Promised: a forked process that sends by itself has a ``service.instance.id`` of its own; one that was given stays."""
    program = f"""{RECORD[row]}
record('it.parent')
assert provider.force_flush(10_000)
pid = os.fork()
if not pid:
    record('it.child')
    assert provider.force_flush(10_000)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    instances = []
    for env in ({}, {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=mine"}):
        run(program, **env)
        found = {"traces": receiver.spans, "logs": receiver.logs, "metrics": receiver.metrics}[row]
        told = {}
        for one, _, resource in found:
            name = one.body.string_value if row == "logs" else one.name
            told.setdefault(name, set()).add(attributes(resource)["service.instance.id"])
        instances.append(told["it.parent"] | told["it.child"])
        del found[:]

    assert len(instances[0]) == 2
    assert instances[1] == {"mine"}


def test_ticker_called(make, receiver):
    """Promised: metrics are collected by the clock, without anybody's asking."""
    recorder = make(receiver.url)
    called = []
    recorder.collect_interval = 0.05
    recorder.collectors.append(lambda: called.append(1))
    recorder.start()

    wait_for(lambda: len(called) > 1)


def test_ticker_collects_metrics(make, receiver, scope):
    """Promised: what was collected is sent."""
    recorder = make(receiver.url)
    recorder.collect_interval = 0.05
    recorder.collectors.append(lambda: recorder.append(SIGNALS["metrics"].kind, scope, metric("ticked")))
    recorder.start()

    wait_for(lambda: "ticked" in SIGNALS["metrics"].arrived(receiver))


def test_metric_timeout_does_not_kill_worker_thread(make, receiver, scope, monkeypatch):
    """Promised: a collection that fails ends no thread: the next one comes, and everything else is sent."""
    from chegou_otel import _guard

    monkeypatch.setattr(_guard, "strict", False)
    recorder = make(receiver.url)
    failed = threading.Event()

    def fail():
        failed.set()
        raise TimeoutError("too slow")

    recorder.collectors.append(fail)
    recorder.collect_interval = 0.05
    recorder.start()
    assert failed.wait(10)
    SIGNALS["spans"].record(recorder, scope, "item")

    assert recorder.flush(5)
    assert receiver.names() == ["item"]
    recorder.shutdown(2)
    assert _guard.failures.pop("chegou_otel.delivery.courier.collector") >= 1


def test_log_flush_noop(run):
    """Promised: flushing what has no provider of ours to ask fails nobody."""
    run("telemetry.shutdown()\nassert chegou_otel.shutdown() is True", OTEL_SDK_DISABLED="true")


def test_flushes_keep_the_time_of_many_callers(make, receiver, scope):
    """Not among theirs: twenty threads flush while the receiver hangs, and each comes back in its own time."""
    receiver.default = HANG
    recorder = make(receiver.url)
    SIGNALS["spans"].record(recorder, scope, "item")
    took = []

    def flush(_number):
        begin = time.monotonic()
        assert recorder.flush(1.0) is False
        took.append(time.monotonic() - begin)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(flush, range(20)))

    assert max(took) < 1.0 + 0.7
