"""Connections of our own, made on threads of our own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

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
