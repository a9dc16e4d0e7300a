"""Five hundred SIGKILLs in a service that is busy: gunicorn's workers, a pool of RQ's workers, and their work-horses, all at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter

import psutil
import pytest
import rq

from tests.delivery.receiver import wait_for
from tests.e2e.shop import SEED, Customers, attributes
from tests.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.once, pytest.mark.alone, pytest.mark.timeout(600)]

WEB_KILLS = 200
HORSE_KILLS = 180
#: A worker, and then its work-horse, too; or the worker alone, and the work-horse goes on to its end.
PAIR_KILLS = 40
WORKER_KILLS = 40
JOB_SECONDS = 4
WAITING_JOBS = 6


class Slayer(threading.Thread):
    """Kills for as long as it takes; what it raises is raised by ``join``."""

    def __init__(self, run):
        super().__init__()
        self._run, self._error = run, None
        self.start()

    def run(self):
        try:
            self._run()
        except BaseException as error:
            self._error = error

    def join(self, timeout=None):
        super().join(timeout)
        if self._error is not None:
            raise self._error


def noted(shop, offset):
    """How much each process noted behind ``offset``."""
    return Counter(int(line.split(".")[1]) for line in shop.notes(offset) if "." in line)


def slay_web_workers(shop, master, killed):
    """One after the other, each while it serves."""
    while len(killed) < WEB_KILLS:
        offset = shop.notes_path.stat().st_size
        workers = wait_for(lambda: shop.web_workers(master, killed), 20, "a web worker")
        pid = shop.random.choice(workers)
        shop.wait_noted(pid, offset)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


class Field:
    """A pool of RQ's workers, and who of them is at work."""

    def __init__(self, shop):
        self.shop = shop
        self.queue = rq.Queue(connection=shop.redis)
        self.fill()
        self.pool = shop.start("-m", "rq.cli", "worker-pool", "--num-workers", "3", "--url", shop.url, "-c", "shop_settings", "--quiet")
        self.slain, self.kills = set(), Counter()
        #: Work-horses that were killed, or whose parent was.
        self.horses = set()

    def fill(self):
        for _ in range(WAITING_JOBS - self.queue.count):
            self.queue.enqueue("records.work_in_bursts", JOB_SECONDS, job_timeout=120)

    def pair_at_work(self, offset):
        """A worker and its work-horse, which has noted something behind ``offset``."""

        def found():
            busy = noted(self.shop, offset)
            pairs = []
            with contextlib.suppress(psutil.NoSuchProcess):
                for worker in psutil.Process(self.pool.pid).children():
                    pairs += [(worker.pid, horse.pid) for horse in worker.children() if busy[horse.pid] and horse.pid not in self.slain]
            return self.shop.random.choice(pairs) if pairs else None

        return wait_for(found, 30, f"a work-horse at work\n{self.shop.said()}")

    def slay(self):
        plan = ["horse"] * HORSE_KILLS + ["pair"] * PAIR_KILLS + ["worker"] * WORKER_KILLS
        self.shop.random.shuffle(plan)
        for what in plan:
            self.fill()
            worker, horse = self.pair_at_work(self.shop.notes_path.stat().st_size)
            self.shop.moment()
            victims = {"horse": [horse], "pair": [worker, horse], "worker": [worker]}[what]
            for victim in victims:
                with contextlib.suppress(ProcessLookupError):  # a job may be at its end
                    os.kill(victim, signal.SIGKILL)
                    self.kills["worker" if victim == worker else "work-horse"] += 1
                self.shop.moment()
            self.slain.update(victims)
            self.horses.add(horse)

    def close(self):
        self.queue.empty()
        self.shop.stop(self.pool, 60)
        for pid in self.horses:
            wait_for(lambda pid=pid: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 30, "an orphan's end")


def test_five_hundred_random_kills_lose_nothing(shop):
    """What was noted was recorded before the kill came: all of it arrives, and twice only what the ledgers call ambiguous."""
    began = time.monotonic()
    port = free_port()
    master = shop.start("-m", "gunicorn", "-w", "2", "--threads", "2", "--preload", "-b", f"127.0.0.1:{port}", "shop_wsgi:application")
    field, web = Field(shop), []
    customers = Customers(port, count=2, pause=0.02)
    slayers = [Slayer(lambda: slay_web_workers(shop, master, web)), Slayer(field.slay)]
    try:
        for slayer in slayers:
            slayer.join()
        shop.wait_web_workers(master, web)
    finally:
        customers.leave()
    slain = time.monotonic() - began
    field.close()
    shop.stop(master)
    shop.next_process()

    kills = len(web) + sum(field.kills.values())
    assert kills >= 500
    shop.check(f"{len(web)} web workers, {dict(field.kills)}, {slain:.0f} s of killing, {time.monotonic() - began:.0f} s in all", kills)
    # No job is tried again: each that began is told once, by whoever saw its end.
    told = Counter(attributes(job)["messaging.message.id"] for job in shop.jobs)
    assert set(told.values()) == {1}, (SEED, [job for job, times in told.items() if times > 1])
    assert len(told) >= len(field.horses)
    print(Counter(attributes(job)["rq.job.status"] for job in shop.jobs))
