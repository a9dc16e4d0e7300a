"""Every way to end, with a collector that answers and with one that hangs: in time by the wall clock, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import psutil
import pytest
import rq

from tests.delivery.receiver import PATIENCE, raw_server, wait_for
from tests.e2e.test_beside_others import GUNICORN, call
from tests.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(150)]

EXIT_SECONDS = 2.0
#: What the server itself takes to end, and Python.
SLACK_SECONDS = 2.5 * PATIENCE

SCRIPT = ("-c", "import django; django.setup(); import records; records.script({then!r})")
SERVERS = {
    "gunicorn": GUNICORN,
    "gunicorn --preload": (*GUNICORN, "--preload", "-w", "2"),
    "gunicorn gthread": (*GUNICORN, "-k", "gthread", "--threads", "3"),
    "gunicorn gevent": (*GUNICORN, "-k", "gevent"),
    "uvicorn": ("-m", "uvicorn", "--port", "{port}", "shop_asgi:application"),
    "uvicorn, two workers": ("-m", "uvicorn", "--port", "{port}", "--workers", "2", "shop_asgi:application"),
}


@pytest.fixture(params=["answers", "hangs"])
def collector(request, shop):
    """What the service's processes send to; whoever comes afterwards finds the shop's receiver."""
    if request.param == "answers":
        yield {}
        return
    release = threading.Event()

    def talk(connection):
        release.wait(200)

    with raw_server(talk) as url:
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        release.set()


def start(shop, collector, *command, **env):
    return shop.start(*command, SHOP_EXIT_TIMEOUT=str(EXIT_SECONDS), **collector, **env)


def serve(shop, collector, command):
    """A server that has answered, and its port."""
    port = free_port()
    process = start(shop, collector, *[part.format(port=port) for part in command])

    def answers():
        assert process.poll() is None, shop.said()
        with contextlib.suppress(OSError):
            return call(port, "/stream/")[0] == 200

    wait_for(answers, 40, f"{command}\n{shop.said()}")
    return process, port


def ends_in_time(shop, process, number, times=1):
    """Its exit code, within the time: ``times`` that of a single process, where one waits for another."""
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    began = time.monotonic()
    os.kill(process.pid, number)
    try:
        code = process.wait(times * EXIT_SECONDS + SLACK_SECONDS)
    except Exception:
        raise AssertionError(f"{time.monotonic() - began:.1f} s were not enough\n{shop.said()}") from None
    print(f"ended after {time.monotonic() - began:.2f} s")
    wait_for(lambda: not any(map(psutil.pid_exists, children)), 5, "the end of the children")
    return code


def accounted(shop, label):
    """Everything noted arrives by the next process, and nothing was dropped."""
    shop.next_process()
    shop.check(label, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_ends_in_time_and_loses_nothing(shop, collector, server, number):
    if "gevent" in server:
        pytest.importorskip("gevent")
    process, port = serve(shop, collector, SERVERS[server])
    for _ in range(10):
        assert call(port, "/buy/")[0] == 200

    code = ends_in_time(shop, process, number, times=2 if "preload" in server else 1)

    assert code in (0, -number), shop.said()
    accounted(shop, f"{server}, {number.name}")


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_workers_that_are_recycled(shop, collector, worker_class):
    """``--max-requests``: each leaves in time, and the next one serves."""
    if worker_class == "gevent":
        pytest.importorskip("gevent")
    process, port = serve(shop, collector, (*GUNICORN, "-k", worker_class, "--max-requests", "4"))
    seen, began = {}, time.monotonic()

    def two_have_left():
        for worker in psutil.Process(process.pid).children():
            seen.setdefault(worker.pid, worker)
        with contextlib.suppress(OSError):  # while one leaves and the next is not there yet
            call(port, "/buy/")
        return sum(not worker.is_running() for worker in seen.values()) >= 2

    wait_for(two_have_left, 40, f"two workers that left\n{shop.said()}")
    assert time.monotonic() - began < 2 * (EXIT_SECONDS + SLACK_SECONDS)
    ends_in_time(shop, process, signal.SIGTERM)

    accounted(shop, f"{worker_class}, --max-requests")


def test_a_reload(shop, collector):
    """SIGHUP: the old workers leave in time, the new ones serve."""
    process, port = serve(shop, collector, (*GUNICORN, "-w", "2", "-k", "gthread"))
    for _ in range(10):
        assert call(port, "/buy/")[0] == 200
    old = psutil.Process(process.pid).children()
    began = time.monotonic()
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: not any(worker.is_running() for worker in old), 20, "the end of the old workers")
    assert time.monotonic() - began < EXIT_SECONDS + SLACK_SECONDS + 2  # the new ones are started first
    for _ in range(10):
        assert call(port, "/buy/")[0] == 200
    ends_in_time(shop, process, signal.SIGTERM)

    accounted(shop, "SIGHUP")


@pytest.mark.parametrize("how", ["its end", "SIGTERM", "SIGINT"])
def test_a_script(shop, collector, how):
    """SIGTERM ends Python without any hook when nobody handles it: what is held lies in the segments all the same."""
    then = "end" if how == "its end" else "wait"
    process = start(shop, collector, *[part.format(then=then) for part in SCRIPT])
    wait_for(lambda: any(line.startswith("done") for line in shop.notes()), 20, f"a script\n{shop.said()}")
    if how == "its end":
        process.wait(EXIT_SECONDS + SLACK_SECONDS)
    else:
        ends_in_time(shop, process, signal.Signals[how])

    accounted(shop, f"script, {how}")


@pytest.mark.parametrize("options", [("worker",), ("worker-pool", "--num-workers", "2")], ids=["worker", "pool"])
def test_workers_of_rq(shop, collector, options):
    """A worker of a pool is a child of ``multiprocessing``, where nothing that ``atexit`` holds is called."""
    queue = rq.Queue(connection=shop.redis)
    for _ in range(4):
        queue.enqueue("records.work_in_bursts", 0.3)
    process = start(shop, collector, "-m", "rq.cli", *options, "--url", shop.url, "-c", "shop_settings")
    wait_for(lambda: sum(line.startswith("done") for line in shop.notes()) == 4, 40, f"four jobs\n{shop.said()}")

    code = ends_in_time(shop, process, signal.SIGTERM)

    assert code == 0, shop.said()
    accounted(shop, options[0])
    assert len(shop.jobs) == 4
