"""What OpenTelemetry promises of its batch processors, by the names of its tests, for each signal."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

from chegou_otel.delivery import courier
from chegou_otel.delivery.endpoints import endpoints
from chegou_otel.delivery.recorder import Recorder
from tests.delivery.items import RESOURCE
from tests.delivery.receiver import Answer, wait_for
from tests.delivery.upstream.conftest import ROOT, SIGNALS


def test_telemetry_exported_once_batch_size_reached(make, receiver, scope, telemetry, monkeypatch):
    """Promised: a load is sent when there is enough of it, not only when the clock says so; and once."""
    monkeypatch.setattr(courier, "POLL_SECONDS", 60.0)
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "first")
    wait_for(lambda: telemetry.arrived(receiver) == ["first"])
    names = [f"{number} {'x' * 10_000}" for number in range(50)]
    begin = time.monotonic()

    telemetry.record(recorder, scope, *names)

    wait_for(lambda: len(telemetry.arrived(receiver)) > 25)
    assert time.monotonic() - begin < 10
    found = telemetry.arrived(receiver)
    assert found == ["first", *names][: len(found)]


def test_telemetry_exported_once_schedule_delay_reached(make, receiver, scope, telemetry):
    """Promised: a single item is sent without anybody's asking, and once."""
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "first")
    wait_for(lambda: telemetry.arrived(receiver) == ["first"])

    telemetry.record(recorder, scope, "second")

    wait_for(lambda: telemetry.arrived(receiver) == ["first", "second"], courier.POLL_SECONDS + 4)
    assert recorder.flush(2)
    assert telemetry.arrived(receiver) == ["first", "second"]


def test_telemetry_flushed_before_shutdown_and_dropped_after_shutdown(make, receiver, scope, telemetry):
    """Promised: what came before the end is sent at the end; what comes later is dropped. Ours is counted, too."""
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "before")
    assert recorder.shutdown(5)
    assert telemetry.arrived(receiver) == ["before"]

    assert telemetry.record(recorder, scope, "after") == [False]

    account = recorder.ledger()[telemetry.row]
    assert (account.created, account.delivered, account.dropped) == (2, 1, {"closed": 1})
    assert telemetry.arrived(receiver) == ["before"]


def test_force_flush_flushes_telemetry(make, receiver, scope, telemetry):
    """Promised: after a flush everything that was recorded before it is there."""
    recorder = make(receiver.url)
    names = [f"item {number}" for number in range(10)]
    telemetry.record(recorder, scope, *names)

    assert recorder.flush(5)

    assert telemetry.arrived(receiver) == names


def test_batch_telemetry_record_processor_fork(make, receiver, scope, telemetry):
    """Promised: a child sends its own items and none of its parent's; the parent's go out once, from the parent."""
    receiver.default = Answer(503, headers={"retry-after": "1"})
    recorder = make(receiver.url)
    parents = [f"parent {number}" for number in range(9)]
    telemetry.record(recorder, scope, *parents)
    wait_for(lambda: receiver.requests)
    receiver.default = Answer()
    children = [f"child {number}" for number in range(100)]
    theirs, ours = multiprocessing.Pipe()

    def child():
        telemetry.record(recorder, scope, *children)
        ours.send(recorder.flush(10))
        ours.close()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert theirs.recv() is True
    process.join(10)
    wait_for(lambda: recorder.flush(5))
    assert sorted(telemetry.arrived(receiver)) == sorted(parents + children)


def test_record_processor_is_garbage_collected(receiver, scope, tmp_path, telemetry):
    """Promised: what is shut down is kept by nobody, its thread included."""
    recorder = Recorder(RESOURCE, service="shop", spool_dir=tmp_path, endpoints=endpoints(receiver.url, {}))
    telemetry.record(recorder, scope, "item")
    known = weakref.ref(recorder)
    assert recorder.shutdown(5)

    del recorder

    wait_for(lambda: (gc.collect(), known() is None)[1], 5)


FORK = """
import gc, os, sys
sys.path.insert(0, os.getcwd())
from chegou_otel.delivery.recorder import Recorder
from chegou_otel.delivery.endpoints import endpoints
from tests.delivery.upstream.conftest import SIGNALS
from chegou_otel.delivery.otlp import Scope
from tests.delivery.items import RESOURCE
recorder = Recorder(RESOURCE, service="shop", spool_dir=sys.argv[1], endpoints=endpoints(sys.argv[2], {}))
SIGNALS[sys.argv[3]].record(recorder, Scope.of("fork"), "item")
assert recorder.shutdown(5)
del recorder
gc.collect()
pid = os.fork()
if not pid:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_garbage_collected_processor_does_not_crash_on_fork(receiver, tmp_path, telemetry):
    """Promised: a fork after that finds no remains that fail; nothing is said on the standard error."""
    name = next(name for name, each in SIGNALS.items() if each is telemetry)
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path), receiver.url, name], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    # From Python 3.12 on, a fork beside a thread (here: of the test's imports) is warned of.
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "Error" in line or "Exception" in line], done.stderr


def test_shutdown_allows_1_export_to_finish(make, receiver, scope):
    """Promised: the end keeps its time, and the request that is under way is waited for within it. What is left is ours to deliver later."""
    receiver.default = Answer(delay=1.0)
    recorder = make(receiver.url)
    SIGNALS["metrics"].record(recorder, scope, "one")
    wait_for(lambda: receiver.requests)
    for name in ("spans", "logs"):
        SIGNALS[name].record(recorder, scope, "one")
    begin = time.monotonic()

    assert recorder.shutdown(1.5) is False

    assert time.monotonic() - begin < 1.5 + 0.5
    assert SIGNALS["metrics"].arrived(receiver) == ["one"]
    receiver.default = Answer()
    heir = make(receiver.url)
    heir.start()
    wait_for(lambda: all(each.arrived(receiver) for each in SIGNALS.values()))
    wait_for(lambda: not heir.pool.adopted)
    told = heir.ledger()
    for each in SIGNALS.values():
        assert len(each.arrived(receiver)) - 1 <= told[each.row].ambiguous


def test_with_multiple_threads(make, receiver, scope, telemetry):
    """Promised: many threads at once lose nothing, and repeat nothing."""
    recorder = make(receiver.url)

    def emit(which):
        telemetry.record(recorder, scope, *[f"{which}/{number}" for number in range(which)])

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(emit, range(1, 70)))
    assert recorder.shutdown(20)

    assert sorted(telemetry.arrived(receiver)) == sorted(f"{which}/{number}" for which in range(1, 70) for number in range(which))


def test_metrics_already_shutdown(make, receiver, scope, telemetry):
    """Promised: what comes after the end is told as such by the counters about telemetry."""
    recorder = make(receiver.url)
    telemetry.record(recorder, scope, "before")
    recorder.shutdown(5)
    telemetry.record(recorder, scope, "after", "later")

    assert recorder.ledger()[telemetry.row].dropped == {"closed": 2}


def test_exporter_not_called_concurrently(make, receiver, scope, telemetry):
    """Promised: there is one request at a time for a signal, however many threads ask for a flush."""
    inside, most = [], []
    lock = threading.Lock()

    def watch(_message):
        with lock:
            inside.append(1)
            most.append(len(inside))
        time.sleep(0.01)
        with lock:
            inside.pop()
        return Answer()

    receiver.default = watch
    recorder = make(receiver.url)

    def ask(number):
        telemetry.record(recorder, scope, f"item {number}")
        return recorder.flush(20)

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(ask, range(100)))

    assert max(most) == 1
    assert len(set(telemetry.arrived(receiver))) == len(telemetry.arrived(receiver)) == 100
