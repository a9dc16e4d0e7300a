"""uWSGI, which forks without Python's own hooks. Needs a compiler to be installed, so it is no part of the test group."""

from __future__ import annotations

import http.client
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.delivery.receiver import wait_for
from tests.e2e.accounting import attributes
from tests.e2e.test_beside_others import call
from tests.e2e.test_exits import EXIT_SECONDS, SLACK_SECONDS, accounted, collector  # noqa: F401 - a fixture
from tests.redis_server import free_port

UWSGI = next((str(found) for found in [Path(sys.executable).parent / "uwsgi"] if found.exists()), shutil.which("uwsgi"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(UWSGI is None, reason="no uwsgi here: `pip install uwsgi` compiles it, in half a minute"),
]


def serve(shop, *options, **env):
    port = free_port()
    program = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    process = shop.start(
        "-c", program, UWSGI, "--http-socket", f"127.0.0.1:{port}", "--module", "shop_wsgi:application", "--die-on-term", *options,
        SHOP_EXIT_TIMEOUT=str(EXIT_SECONDS), **env,
    )  # fmt: skip

    def answers():
        assert process.poll() is None, shop.said()
        try:
            return call(port, "/stream/")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    wait_for(answers, 40, f"{options}\n{shop.said()}")
    return process, port


def end(shop, process):
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(EXIT_SECONDS + SLACK_SECONDS)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it did not end\n{shop.said()}") from None
    print(f"ended after {time.monotonic() - began:.2f} s")


@pytest.mark.parametrize("options", [("--enable-threads",), ("--enable-threads", "--lazy-apps"), ("--threads", "2")], ids=" ".join)
def test_workers_lose_nothing_and_share_nothing(shop, collector, options):  # noqa: F811
    """Also where the application is loaded before the fork: each worker has segments, a thread and trace IDs of its own."""
    process, port = serve(shop, "--master", "--processes", "2", *options, **collector)

    def workers():
        call(port, "/buy/")
        return {line.split(".")[1] for line in shop.notes() if "." in line}

    wait_for(lambda: len(workers()) == 2, 30, f"both workers\n{shop.said()}")
    with ThreadPoolExecutor(4) as pool:
        assert [status for status, _, _ in pool.map(lambda _: call(port, "/buy/"), range(60))] == [200] * 60
    if not collector:
        wait_for(lambda: len(shop.receiver.spans) > 600, 15, f"spans while it serves\n{shop.said()}")
    end(shop, process)
    accounted(shop, f"uwsgi {' '.join(options)}")

    requests = [span for span, _, _ in shop.receiver.spans if span.kind == 2 and attributes(span).get("url.path") == "/buy/"]
    # Whose answer was read last may not have been at its end yet when the signal came.
    assert len({span.trace_id for span in requests}) == len({span.span_id for span in requests}) == len(requests) > 50


def test_without_a_master_the_process_that_loaded_the_application_goes_on(shop):
    """Its hook after a fork is called without any: what was recorded before stays, and one thread sends."""
    process, port = serve(shop, "--enable-threads", SHOP_RECORDS_AT_LOAD="yes")
    with ThreadPoolExecutor(4) as pool:
        assert [status for status, _, _ in pool.map(lambda _: call(port, "/buy/"), range(200))] == [200] * 200
    wait_for(lambda: len(shop.receiver.spans) > 4000, 15, f"spans while it serves\n{shop.said()}")
    assert psutil.Process(process.pid).num_threads() == 2, "the one that serves, and the one that sends"
    end(shop, process)
    accounted(shop, "uwsgi without a master")
