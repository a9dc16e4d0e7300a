"""Who reports: one process per Redis, with real workers, a real web server, kills and outages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
import rq

from chegou_otel.integrations.rq.election import Lease, Rank, key_of
from tests import redis_server
from tests.delivery.receiver import wait_for
from tests.integrations.rq.conftest import attributes

pytestmark = pytest.mark.slow

LEASE = 1.5
FAST = {"OTEL_METRIC_EXPORT_INTERVAL": "300", "HUB_LEASE": str(LEASE)}
#: Only the reporter asks for the first five of a queue.
REPORTS = "LRANGE rq:queue:default 0 4"


class Watch:
    """Who sends what to Redis."""

    def __init__(self, client):
        self.seen = []
        # Not with the client's time-out: nobody may say anything for a while.
        self._client = redis.Redis(port=client.connection_pool.connection_kwargs["port"], socket_timeout=None)
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with suppress(Exception):
            for command in self._monitor.listen():
                self.seen.append((time.monotonic(), command["command"], f"{command['client_address']}:{command['client_port']}"))

    def reporters(self, since):
        """Addresses that read the queue's depth since then."""
        return {address for at, command, address in list(self.seen) if at > since and command.startswith(REPORTS)}

    def close(self):
        self._monitor.connection.disconnect()
        self._client.close()


@pytest.fixture
def watch(redis_client):
    made = Watch(redis_client)
    yield made
    made.close()


def owner(address, processes):
    """Which of the processes has the socket with that local address."""
    port = f"{int(address.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {line[9] for line in lines if line[1].endswith(f":{port}")}
    for process in processes:
        for descriptor in Path(f"/proc/{process.pid}/fd").glob("*"):
            with suppress(OSError):
                if any(f"[{inode}]" in os.readlink(descriptor) for inode in inodes):
                    return process
    return None


def leader(watch, processes, since=None):
    """The one process that reports."""
    since = time.monotonic() if since is None else since
    wait_for(lambda: any(owner(address, processes) for address in watch.reporters(since)), 20, "somebody reports")
    found = [owner(address, processes) for address in watch.reporters(since)]
    (one,) = {process for process in found if process is not None}
    return one


def instances(hub, name="rq.queue.jobs"):
    return {attributes(resource)["service.instance.id"] for metric, _, resource in hub.receiver.metrics if metric.name == name}


def gauge(hub, name):
    """The last report's values."""
    newest = {}
    for metric, _, _ in list(hub.receiver.metrics):
        if metric.name == name:
            for point in metric.gauge.data_points:
                newest[tuple(attributes(point).values())] = point.as_int or point.as_double
    return newest


def test_one_of_four_workers_reports_and_another_when_it_is_killed(hub, watch):
    hub.queue().enqueue("measured_jobs.parent", hub.redis_port, 3)
    workers = [hub.start("reporting.py", "worker", **FAST) for _ in range(4)]
    first = leader(watch, workers)
    since = time.monotonic()
    wait_for(lambda: len([1 for at, command, _ in list(watch.seen) if at > since and command.startswith(REPORTS)]) > 8, 20, "reports")
    assert leader(watch, workers, since) is first  # a work-horse's socket would belong to none of them
    assert {owner(address, workers) for address in watch.reporters(since)} == {first}

    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    killed = time.monotonic()
    others = [worker for worker in workers if worker is not first]
    second = leader(watch, others, killed)
    waited = min(at for at, command, _ in list(watch.seen) if at > killed and command.startswith(REPORTS)) - killed
    assert second is not first
    assert waited < LEASE * 4 / 3 + 1.5  # the lease, a round, and a busy machine

    (instance,) = instances(hub)  # no new series
    assert instance == f"rq-reporter@localhost:{hub.redis_port}/0"
    assert gauge(hub, "rq.queue.jobs")["default", "queued"] == 0
    for other in others:
        other.terminate()


def test_a_job_that_enqueues_does_not_make_its_work_horse_a_reporter(hub, watch):
    worker = hub.start("reporting.py", "worker", **FAST)
    since = time.monotonic()
    hub.queue().enqueue("measured_jobs.parent", hub.redis_port, 4)
    wait_for(lambda: hub.redis.llen("rq:queue:children") == 1, 20)
    wait_for(lambda: len(watch.reporters(since)) >= 1, 20)
    wait_for(lambda: len(hub.jobs) == 1, 20)
    assert {owner(address, [worker]) for address in watch.reporters(since)} == {worker}


def web(hub):
    """A gunicorn that forked its worker from the loaded application, and has answered once: both of its processes."""
    port = redis_server.free_port()
    master = hub.start("-m", "gunicorn", "reporting_web:application", "--preload", "--bind", f"127.0.0.1:{port}", **FAST)

    def ask():
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return int(answer.read())
        return 0

    return master, Server(wait_for(ask, 20, "gunicorn's answer"))


class Server(NamedTuple):
    """A process that somebody else started."""

    pid: int


def test_with_no_worker_alive_a_web_process_reports_until_a_worker_appears(hub, watch):
    queue = hub.queue()
    for _ in range(3):
        queue.enqueue("measured_jobs.report_sales")
    master, child = web(hub)
    assert leader(watch, [master, child]) in (master, child)  # though nobody in it ever used a queue
    wait_for(lambda: gauge(hub, "rq.queue.jobs").get(("default", "queued")) == 3, 20)

    worker = hub.start("reporting.py", "worker", **FAST)
    assert leader(watch, [worker]) is worker
    wait_for(lambda: gauge(hub, "rq.queue.jobs").get(("default", "queued")) == 0, 20)
    since = time.monotonic() + LEASE  # by then the web processes have looked again
    wait_for(lambda: len([1 for at, command, _ in list(watch.seen) if at > since and command.startswith(REPORTS)]) > 3, 20, "reports")
    assert {owner(address, [worker, master, child]) for address in watch.reporters(since)} == {worker}

    os.kill(master.pid, signal.SIGSTOP)
    worker.kill()
    worker.wait()
    assert leader(watch, [child]) is child


def test_a_child_that_was_forked_while_its_parent_reported_is_a_candidate_itself(hub, watch):
    hub.queue().enqueue("measured_jobs.report_sales")
    parent = hub.start("reporting_fork.py", **FAST)
    child = Server(wait_for(lambda: int(re.search(r"^\d+$", hub.said() + "\n0", re.MULTILINE)[0]), 20, "the fork"))
    assert leader(watch, [parent, child]) is parent
    before = watch.reporters(0)

    os.kill(parent.pid, signal.SIGSTOP)
    assert leader(watch, [child], time.monotonic() + 0.1) is child
    assert watch.reporters(time.monotonic() - 0.5) & before == set()  # over a connection of its own


def test_a_cron_scheduler_reports_and_its_jobs_lateness_is_told(hub, watch):
    scheduler = hub.start("reporting.py", "cron", **FAST)
    hub.queue().enqueue("measured_jobs.report_sales")
    assert leader(watch, [scheduler]) is scheduler
    wait_for(lambda: gauge(hub, "rq.cron.schedulers") == {(): 1}, 20)
    wait_for(lambda: gauge(hub, "rq.cron.lateness") == {("nightly",): 0}, 20)


def test_ranks(redis_client):
    """Whoever is better takes over; equals and worse ones wait; who dies is missed for one lease at most."""
    leases = {rank: Lease(lambda: redis_client, "rq", rank, 0.3) for rank in Rank}
    twin = Lease(lambda: redis_client, "rq", Rank.WORKER, 0.3)

    assert leases[Rank.WEB].take()
    assert leases[Rank.SCHEDULER].take()
    assert not leases[Rank.WEB].take()
    assert leases[Rank.WORKER].take()
    assert not twin.take()
    assert leases[Rank.WORKER].take()  # renewed
    assert leases[Rank.ALONE].take()
    leases[Rank.WORKER].give_back()  # it does not know yet that it is not its own any more
    assert redis_client.get(key_of("rq"))
    assert not leases[Rank.WORKER].take()
    leases[Rank.ALONE].give_back()
    assert leases[Rank.WEB].take()
    assert 0 < redis_client.pttl(key_of("rq")) <= 300
    wait_for(leases[Rank.WEB].take, 2)
    wait_for(lambda: redis_client.get(key_of("rq")) is None, 2)
    assert twin.take()


def test_five_hundred_rounds_of_four_candidates_have_one_leader_each(redis_client):
    leases = [Lease(lambda: redis_client, "rq", Rank.WORKER, 30) for _ in range(4)]
    assert {sum(lease.take() for lease in leases) for _ in range(500)} == {1}


@contextmanager
def command(hub, *options, **env):
    process = subprocess.Popen(
        [sys.executable, "-m", "chegou_otel", "rq-reporter", *options],
        env={**hub.env, **env}, cwd=hub.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_command_prints_a_report(hub):
    hub.queue().enqueue("measured_jobs.report_sales")
    with command(hub, "--redis-url", f"redis://localhost:{hub.redis_port}/0", "--once", "--json") as process:
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    values = {tuple(each["labels"].values()): each["value"] for each in json.loads(said)["gauges"] if each["name"] == "rq.queue.jobs"}
    assert values["default", "queued"] == 1
    assert hub.receiver.requests == []


def test_the_command_sends_one_report(hub):
    hub.queue().enqueue("measured_jobs.report_sales")
    with command(hub, "--redis-url", f"redis://localhost:{hub.redis_port}/0", "--once") as process:
        said, _ = process.communicate(timeout=20)
    assert (process.returncode, "reported" in said) == (0, True), said
    assert gauge(hub, "rq.queue.jobs")["default", "queued"] == 1
    (resource,) = {metric.name: resource for metric, _, resource in hub.receiver.metrics if metric.name == "rq.queue.jobs"}.values()
    told = attributes(resource)
    assert (told["service.name"], told["service.instance.id"]) == ("hub", f"rq-reporter@localhost:{hub.redis_port}/0")
    assert not {"process.pid", "host.name", "process.runtime.version"} & set(told)


def test_the_command_says_that_redis_is_not_there(hub):
    with command(hub, "--redis-url", f"redis://localhost:{redis_server.free_port()}/0", "--once") as process:
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in said


def test_an_outage_of_redis_is_one_line_and_then_it_goes_on(hub, tmp_path):
    port = redis_server.free_port()
    binary = [redis_server.binary(), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]

    @contextmanager
    def running():
        server = subprocess.Popen(binary, stdout=subprocess.DEVNULL)
        client = redis.Redis(port=port)
        wait_for(lambda: _answers(client), 10)
        rq.Queue(connection=client).enqueue("measured_jobs.report_sales")
        try:
            yield
        finally:
            server.kill()
            server.wait()

    def reports():
        return sum(metric.name == "rq.queue.jobs" for metric, _, _ in hub.receiver.metrics)

    script = "import sys\nfrom chegou_otel.integrations.rq import reporter\nreporter.LEASE_SECONDS = 0.6\nfrom chegou_otel.cli import main\nsys.exit(main())"
    arguments = ["-c", script, "rq-reporter", "--redis-url", f"redis://127.0.0.1:{port}/0", "--interval", "0.2"]
    with running():
        process = hub.start(*arguments)
        wait_for(lambda: reports() >= 2, 20, hub.said())
    wait_for(lambda: "are not measured" in hub.said(), 20)
    time.sleep(1.5)  # several rounds, to be quiet in
    before = reports()
    with running():
        wait_for(lambda: reports() > before, 20, hub.said())
        process.terminate()
        assert process.wait(10) == 0
    assert hub.said().count("are not measured") == 1
    assert "Traceback" not in hub.said()


def _answers(client):
    try:
        return client.ping()
    except redis.RedisError:
        return False


def test_a_redis_that_hangs_costs_the_reporter_its_deadline_and_nobody_else_anything(telemetry):
    from chegou_otel.integrations.rq.reporter import Post

    with socket.create_server(("127.0.0.1", 0)) as silent:
        post = Post(telemetry.telemetry.runtime, redis.Redis(port=silent.getsockname()[1]), Rank.WORKER)
        start = time.monotonic()
        post.round()
        assert time.monotonic() - start < 5
    assert telemetry.metrics.keys() & {"rq.workers"} == set()


def test_nothing_is_reported_where_nothing_is_sent_or_where_it_is_switched_off(telemetry, redis_client):
    from chegou_otel.integrations.rq.reporter import Reporter

    reporter = Reporter(telemetry.telemetry.runtime)
    reporter.see(redis_client, Rank.WORKER)
    assert not reporter.wanted
    assert not reporter._running.locked()
