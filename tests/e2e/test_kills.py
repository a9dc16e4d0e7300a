"""SIGKILL at random moments: what was recorded arrives, by whoever adopts it, and twice only where the ledger says `ambiguous`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.delivery.receiver import Receiver, unused_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROJECT = Path(__file__).parent / "proving"
ROOT = Path(__file__).parents[2]
#: A failure prints it; SHOP_SEED repeats the moments as far as the machine lets it.
SEED = int(os.environ.get("SHOP_SEED") or random.randrange(1 << 32))


class Shop:
    """A service whose processes die: its receiver, its notes of what was recorded, its ledgers."""

    def __init__(self, folder, redis_port):
        self.folder = folder
        self.receiver = Receiver()
        self.random = random.Random(SEED)
        self.notes_path = folder / "notes"
        self.notes_path.touch()
        self.ledgers_path = folder / "ledgers"
        self.url = f"redis://127.0.0.1:{redis_port}/0"
        self.env = {
            **{key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))},
            "SHOP_DATABASE": str(folder / "db.sqlite3"), "SHOP_REDIS_PORT": str(redis_port), "SHOP_NOTES": str(self.notes_path),
            "SHOP_LEDGERS": str(self.ledgers_path), "DJANGO_SETTINGS_MODULE": "shop_settings", "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url, "PYTHONPATH": os.pathsep.join([str(ROOT), str(PROJECT)]),
        }  # fmt: skip
        self.processes = []

    def start(self, *command, **env):
        with (self.folder / "said.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=PROJECT,
                env={**self.env, **env},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def said(self):
        return f"seed {SEED}\n{(self.folder / 'said.log').read_text()[-4000:]}"

    def notes(self, offset=0):
        with self.notes_path.open("rb") as file:
            file.seek(offset)
            return file.read().decode().splitlines()

    def moment(self, most=0.04):
        time.sleep(self.random.uniform(0, most))

    def wait_noted(self, pid, offset=0):
        """Wait until this process has noted some records behind ``offset``, then a moment: it is in the midst of work."""
        enough = self.random.randrange(1, 150)
        noted = lambda: sum(f"n.{pid}." in line for line in self.notes(offset)) >= enough  # noqa: E731
        wait_for(noted, 20, f"records of {pid}\n{self.said()}")
        self.moment()

    def stop(self, process, timeout=30):
        process.terminate()
        assert process.wait(timeout) in (0, -signal.SIGTERM), self.said()

    def next_process(self):
        """Start the next process of the service: it adopts what lies there."""
        process = self.start("-c", "import django; django.setup(); import records; records.next_process()")
        assert process.wait(60) == 0, self.said()

    def check(self, label, kills):
        """Everything noted arrived; what came twice is in the ledger as ambiguous."""
        noted = Counter(self.notes())
        wanted = {line.partition(" ")[::2] for line in noted if not line.startswith("done")}

        def arrived():
            spans = list(self.receiver.spans)
            parents = Counter(span.parent_span_id.hex() for span, _, _ in spans if span.name.startswith("SELECT"))
            return {
                "span": Counter(span.name for span, _, _ in spans),
                "log": Counter(log.body.string_value for log, _, _ in list(self.receiver.logs)),
                "sql": parents,
            }

        def missing():
            found = arrived()
            return [(kind, name) for kind, name in wanted if not found[kind][name]]

        deadline = time.monotonic() + 15
        while (lost := missing()) and time.monotonic() < deadline:
            time.sleep(0.2)
        found = arrived()
        assert not lost, f"{len(lost)} of {len(wanted)} lost, such as {lost[:3]}\n{self.said()}"
        twice = Counter()
        ids = Counter(span.span_id for span, _, _ in self.receiver.spans)
        twice["traces"] = sum(count - 1 for count in ids.values())
        twice["logs"] = sum(count - 1 for name, count in found["log"].items() if name.startswith("n."))
        ledgers = [json.loads(line) for line in self.ledgers_path.read_text().splitlines()]
        ambiguous = {name: sum(each[name]["ambiguous"] for each in ledgers) for name in twice}
        dropped = [each[name]["dropped"] for each in ledgers for name in ("traces", "logs", "metrics") if each[name]["dropped"]]
        print(f"\n{label}: {kills} kills, {len(wanted)} records, 0 lost, twice {dict(twice)}, ambiguous {ambiguous}, seed {SEED}")
        assert all(twice[name] <= ambiguous[name] for name in twice), (dict(twice), ambiguous, self.said())
        assert not dropped
        return found

    @property
    def jobs(self):
        return [span for span, _, _ in self.receiver.spans if span.kind == 5]

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.receiver.close()


@pytest.fixture
def shop(tmp_path, redis_client, redis_port):
    made = Shop(tmp_path, redis_port)
    made.redis = redis_client
    yield made
    made.close()


def attributes(span):
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


# -- web workers -------------------------------------------------------------------------------------------------------


class Customers:
    """Requests, until told to stop. A broken connection is what a kill looks like from outside."""

    def __init__(self, port, count=3):
        self.port = port
        self.answered = 0
        self._stop = threading.Event()
        self.threads = [threading.Thread(target=self._buy) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _buy(self):
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/buy/")
                self.answered += connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                self._stop.wait(0.02)
            finally:
                connection.close()

    def leave(self):
        self._stop.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize(("preload", "kills"), [(True, 36), (False, 14)], ids=["preload", "each its own"])
def test_killed_web_workers_lose_nothing(shop, preload, kills):
    port = unused_port()
    options = ["--preload"] if preload else []
    master = shop.start("-m", "gunicorn", "-w", "2", "--threads", "2", "-b", f"127.0.0.1:{port}", *options, "shop_wsgi:application")
    customers = Customers(port)
    try:
        killed = []
        while len(killed) < kills:
            offset = shop.notes_path.stat().st_size
            workers = wait_for(lambda: [w.pid for w in psutil.Process(master.pid).children() if w.pid not in killed], 20, "a worker")
            pid = shop.random.choice(workers)
            shop.wait_noted(pid, offset)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    finally:
        customers.leave()
    shop.stop(master)
    shop.next_process()

    assert customers.answered
    shop.check("gunicorn --preload" if preload else "gunicorn", kills)


# -- RQ ----------------------------------------------------------------------------------------------------------------


def enqueue(shop, seconds, count=1):
    import rq

    queue = rq.Queue(connection=shop.redis)
    return [queue.enqueue("records.work", seconds, job_timeout=120) for _ in range(count)]


def start_worker(shop, *options):
    return shop.start("-m", "rq.cli", "worker", "--url", shop.url, "-c", "shop_settings", "--quiet", *options)


def horse_of(shop, worker, offset=0):
    """The work-horse that is at work now."""

    def noted():
        found = [child.pid for child in psutil.Process(worker.pid).children()]
        lines = shop.notes(offset)
        return next((pid for pid in found if any(f"n.{pid}." in line for line in lines)), None)

    return wait_for(noted, 30, f"a work-horse\n{shop.said()}")


def test_killed_work_horses_lose_nothing(shop):
    kills = 50
    enqueue(shop, 30, kills)
    worker = start_worker(shop, "--burst")
    for _ in range(kills):
        offset = shop.notes_path.stat().st_size
        pid = horse_of(shop, worker, offset)
        shop.wait_noted(pid, offset)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not psutil.pid_exists(pid), 20, "the parent's wait")
    assert worker.wait(60) == 0, shop.said()

    shop.check("work-horses", kills)
    assert Counter(attributes(job)["rq.job.status"] for job in shop.jobs) == {"killed": kills}
    assert len({job.span_id for job in shop.jobs}) == kills


def test_a_work_horse_whose_parent_was_killed_finishes_and_is_told_once(shop):
    kills = 4
    for _ in range(kills):
        offset = shop.notes_path.stat().st_size
        enqueue(shop, 0.5)
        worker = start_worker(shop)
        pid = horse_of(shop, worker, offset)
        shop.moment(0.2)
        worker.kill()
        worker.wait()
        wait_for(lambda pid=pid: f"done {pid}" in shop.notes(), 20, "the orphan's end")
        wait_for(lambda pid=pid: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 20, "the orphan's exit")
    shop.next_process()

    shop.check("parents, the work-horse lives on", kills)
    assert Counter(attributes(job)["rq.job.status"] for job in shop.jobs) == {"finished": kills}
    assert len({job.span_id for job in shop.jobs}) == kills


@pytest.mark.parametrize("adopter", ["worker", "web"])
def test_parent_and_work_horse_killed_are_told_once_by_whoever_comes_next(shop, adopter):
    """Also by a process of the service that never works, such as a web worker."""
    kills = 2
    for _ in range(kills):
        offset = shop.notes_path.stat().st_size
        enqueue(shop, 30)
        worker = start_worker(shop)
        pid = horse_of(shop, worker, offset)
        shop.moment(0.1)
        worker.kill()
        shop.moment(0.1)
        os.kill(pid, signal.SIGKILL)
        worker.wait()
    if adopter == "worker":
        start_worker(shop, "--burst").wait(60)
    shop.next_process()

    shop.check("parents and work-horses", 2 * kills)
    assert Counter(attributes(job)["rq.job.status"] for job in shop.jobs) == {"vanished": kills}
    assert len({job.span_id for job in shop.jobs}) == kills
