"""Looking on: what is read changes nothing, and nobody is waited for."""

from __future__ import annotations

import fcntl
import os
import threading
import time

from chegou_otel.delivery import status
from chegou_otel.delivery.frames import Kind
from tests.delivery.items import span
from tests.delivery.receiver import Answer, wait_for
from tests.delivery.test_forks import ended, forked
from tests.redis_server import free_port


def record(recorder, scope, *names):
    for name in names:
        recorder.append(Kind.SPAN, scope, span(name))


def is_locked(path):
    """As another process sees it: our own locks are no hindrance to us."""

    def try_lock():
        fd = os.open(path, os.O_RDWR)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except OSError:
            return
        raise SystemExit(3)

    pid = forked(try_lock)
    return ended(pid) == 0


def test_our_own_segments_are_not_left_and_stay_ours(make, receiver, scope):
    recorder = make(receiver.url)
    record(recorder, scope, "mine")
    path = recorder.pool.current.path
    assert is_locked(path)
    assert status.left(recorder.pool) == []
    assert is_locked(path)


def test_what_others_left_is_read_and_not_taken(make, receiver, scope):
    url = f"http://127.0.0.1:{free_port()}"
    writer = make(url)
    record(writer, scope, "one", "two")
    writer.shutdown(0)
    looking = make(url)
    (found,) = status.left(looking.pool)
    assert (found.alive, found.accounts["traces"].held) == (False, 2)
    assert looking.ledger()["traces"].created == 0
    assert os.path.exists(found.path)


def test_no_folder_no_segments(make, receiver):
    assert status.left(make(receiver.url, memory=True).pool) == []


def test_a_busy_recorder_is_not_waited_for(make, receiver, scope):
    recorder = make(receiver.url)
    record(recorder, scope, "one")
    holding, over = threading.Event(), threading.Event()

    def hold():
        with recorder._lock:
            holding.set()
            over.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(10)
    began = time.monotonic()
    assert status.books(recorder) is None
    assert time.monotonic() - began < 1
    over.set()
    thread.join()
    assert status.books(recorder).own["traces"].created == 1


def test_an_endpoint_by_its_last_success_and_failure(make, receiver, scope):
    recorder = make(receiver.url)
    assert status.contacts(recorder)["traces"] == status.Contact(f"{receiver.url}/v1/traces")
    receiver.default = Answer(status=503)
    record(recorder, scope, "one")
    wait_for(lambda: status.contacts(recorder)["traces"].failing)
    failing = status.contacts(recorder)["traces"]
    assert (failing.delivered_at, failing.failure) == (0.0, "HTTP 503 Service Unavailable")
    receiver.default = Answer()
    wait_for(lambda: recorder.flush(5))
    fine = status.contacts(recorder)["traces"]
    assert not fine.failing
    assert fine.delivered_at >= fine.failed_at > time.time() - 60
    assert abs(fine.skew) < 5
    assert status.contacts(recorder)["logs"].delivered_at == 0.0
