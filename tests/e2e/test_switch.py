"""`chegou-otel off` and `on` beside a running deployment: gunicorn's workers, an RQ worker and its work-horses."""

from __future__ import annotations

import http.client
import os
import signal
import time

import psutil
import pytest

from tests.delivery.receiver import HANG, Answer, wait_for
from tests.e2e.shop import attributes
from tests.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
#: "Within a few seconds."
SOON = 4.0


class Deployment:
    """Two web workers and an RQ worker."""

    def __init__(self, shop, *options, worker="Worker"):
        self.shop = shop
        # Folders of our own: the command writes to all that a service of this user may look into.
        self.env = {"XDG_STATE_HOME": str(shop.folder / "state"), "TMPDIR": str(shop.folder / "tmp")}
        self.port = free_port()
        web = ["-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{self.port}", *options, "shop_wsgi:application"]
        self.web = shop.start(*web, **self.env)
        classes = ["-w", f"rq.worker.{worker}"] if worker != "Worker" else []
        self.worker = shop.start("-m", "rq.cli", "worker", "--url", shop.url, "-c", "shop_settings", "--quiet", *classes, **self.env)

    def command(self, *words):
        assert self.shop.start("-m", "chegou_otel", *words, **self.env).wait(30) == 0, self.shop.said()

    def get(self, path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.getheader("X-Correlation-ID"), answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None, ""
        finally:
            connection.close()

    def workers(self):
        return [child.pid for child in psutil.Process(self.web.pid).children()]

    def use(self, known=None):
        """A request that enqueues a job, until both were served; the job's ID and the header."""
        header, job = wait_for(
            lambda: (found := self.get("/enqueue/?what=x", **known or {}))[1] and found, 30, f"an answer\n{self.shop.said()}"
        )
        wait_for(lambda: self.shop.redis.hget(f"rq:job:{job}", "status") == b"finished", 30, f"the job\n{self.shop.said()}")
        return job, header

    def spans(self, kind):
        return [span for span, _, _ in self.shop.receiver.spans if span.kind == kind]

    def is_quiet(self):
        """Nobody sends anything for a while, although everybody is at work."""
        before = len(self.shop.receiver.requests)
        for _ in range(4):
            self.use()
        time.sleep(1.2)
        return len(self.shop.receiver.requests) == before


SERVER, CONSUMER = 2, 5


@pytest.mark.parametrize(("options", "worker"), [((), "Worker"), (("--preload",), "Worker"), ((), "SpawnWorker"), ((), "SimpleWorker")])
def test_a_deployment_is_switched_off_and_on(shop, options, worker):
    if worker == "SpawnWorker":
        pytest.importorskip("rq.worker.worker_classes")
    deployment = Deployment(shop, *options, worker=worker)
    deployment.use()
    wait_for(lambda: deployment.spans(SERVER) and deployment.spans(CONSUMER), 20, f"spans of both\n{shop.said()}")

    deployment.command("off", "shop", "--reason", "a test")
    off_at = time.time()
    wait_for(deployment.is_quiet, 20, f"silence\n{shop.said()}")
    assert 1 <= shop.said().count("correlation IDs go on") <= 4, "once per process that has something to send, not per job"
    before = len(deployment.spans(SERVER)), len(deployment.spans(CONSUMER))
    job, header = deployment.use({"X-Correlation-ID": "pedido-0000001"})
    assert header == "pedido-0000001"
    assert b"pedido-0000001" in shop.redis.hget(f"rq:job:{job}", "chegou_otel"), "the job has it, too"

    # A web worker that is forked while it is off.
    old = deployment.workers()
    os.kill(old[0], signal.SIGKILL)
    wait_for(lambda: len(now := deployment.workers()) == 2 and old[0] not in now, 20, "a new worker")
    wait_for(deployment.is_quiet, 20, f"silence again\n{shop.said()}")
    assert (len(deployment.spans(SERVER)), len(deployment.spans(CONSUMER))) == before

    on_at = time.time()
    deployment.command("on", "shop")
    wait_for(
        lambda: deployment.use() and len(deployment.spans(SERVER)) > before[0] and len(deployment.spans(CONSUMER)) > before[1],
        20, f"spans again\n{shop.said()}",
    )  # fmt: skip
    assert "telemetry is on again" in shop.said()
    pids = set(deployment.workers())
    served = lambda: {pid for _, _, resource in shop.receiver.spans for pid in pids if f"{pid}" in str(resource)}  # noqa: E731
    wait_for(lambda: deployment.get("/buy/") and served() == pids, 20, "spans of both web workers")
    began = [span.start_time_unix_nano / 1e9 for span, _, _ in shop.receiver.spans]
    logged = [log.time_unix_nano / 1e9 for log, _, _ in shop.receiver.logs]
    assert not [moment for moment in [*began, *logged] if off_at + SOON < moment < on_at], "nothing was recorded to be sent later"


def test_a_worker_whose_collector_hangs_has_looked_before_its_next_work_horse(shop):
    """Its courier is busy then, and looks when it is back."""
    deployment = Deployment(shop)
    deployment.use()
    wait_for(lambda: deployment.spans(CONSUMER), 20, "the job's span")
    shop.receiver.default = HANG
    asked = len(shop.receiver.requests)
    deployment.use()
    wait_for(lambda: len(shop.receiver.requests) > asked + 1, 20, "requests that hang")
    deployment.command("off", "shop")
    time.sleep(1.1)  # what was seen holds for a second
    job, _ = deployment.use()
    shop.receiver.default = Answer()
    deployment.command("on", "shop")
    wait_for(lambda: deployment.use() and len(deployment.spans(CONSUMER)) > 2, 40, f"spans again\n{shop.said()}")

    told = {attributes(span)["messaging.message.id"] for span in deployment.spans(CONSUMER)}
    assert job not in told
