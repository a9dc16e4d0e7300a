"""Connections of our own, made on threads of our own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import redis

from chegou_otel import _forks
from chegou_otel.integrations.rq import claims, connection

SOURCE = """
    import sys
    import chegou_otel

    chegou_otel.setup("shop", active="always")
    import redis
    import rq

    from chegou_otel.integrations.rq import claims, connection
    from chegou_otel.integrations.rq.election import Lease, Rank
    from chegou_otel.integrations.rq.reading import Reader

    theirs = redis.Redis(host="127.0.0.1", port=PORT)
    before = set(sys.modules)
    own = connection.like(theirs)
    own.ping()
    Reader(own, "rq").read()
    claims._once(theirs.connection_pool, ("SET", "claimed", "1", "NX", "EX", "5"))
    print(sorted(set(sys.modules) - before))
"""


def test_a_thread_of_ours_imports_nothing_to_reach_redis(redis_port, tmp_path):
    """A fork in the middle of an import leaves the child with a module lock that nobody releases."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SOURCE).replace("PORT", str(redis_port))],
        env={"PYTHONPATH": ":".join(sys.path), "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path), "OTEL_SDK_DISABLED": ""},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("reach", ["claim", "report"])
def test_no_fork_happens_while_a_name_is_looked_up(monkeypatch, redis_port, reach):
    """The C library's resolver has locks that a child inherits as they are: of 600 forks beside a thread that looks names up, one hung."""
    client, look_up, seen = redis.Redis(host="localhost", port=redis_port), socket.getaddrinfo, []

    def slow(*args, **options):
        began = time.monotonic()
        pid = os.fork()  # of another thread than the one that is calm
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        seen.append(time.monotonic() - began)

    def looking(*args, **options):
        thread = threading.Thread(target=slow)
        thread.start()
        thread.join()
        return look_up(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", looking)
    _forks.calm.before()  # of a fork that found nobody inside
    _forks.calm.after()
    alarm = signal.setitimer(signal.ITIMER_REAL, 0)  # where one is set, a fork does not wait
    try:
        if reach == "claim":
            assert claims._once(client.connection_pool, ("PING",)) in (b"PONG", "PONG")
        else:
            assert connection.like(client).ping()
    finally:
        signal.setitimer(signal.ITIMER_REAL, *alarm)

    assert seen[0] > _forks._PATIENCE * 0.9, "it has waited as long as a fork waits"
