"""SIGKILL at random moments: what was recorded arrives, by whoever adopts it, and twice only where the ledger says `ambiguous`."""

from __future__ import annotations

import os
import signal
from collections import Counter

import psutil
import pytest

from tests.delivery.receiver import wait_for
from tests.e2e.shop import Customers, attributes
from tests.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# -- web workers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preload", "kills"), [(True, 36), (False, 14)], ids=["preload", "each its own"])
def test_killed_web_workers_lose_nothing(shop, preload, kills):
    port = free_port()
    options = ["--preload"] if preload else []
    master = shop.start("-m", "gunicorn", "-w", "2", "--threads", "2", "-b", f"127.0.0.1:{port}", *options, "shop_wsgi:application")
    customers = Customers(port)
    try:
        killed = []
        while len(killed) < kills:
            offset = shop.notes_path.stat().st_size
            workers = wait_for(lambda: shop.web_workers(master, killed), 20, "a worker")
            pid = shop.random.choice(workers)
            shop.wait_noted(pid, offset)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        shop.wait_web_workers(master, killed)
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
            assert start_worker(shop, "--burst").wait(60) == 0, shop.said()
        shop.next_process()

    shop.check("parents and work-horses", 2 * kills)
    assert Counter(attributes(job)["rq.job.status"] for job in shop.jobs) == {"vanished": kills}
