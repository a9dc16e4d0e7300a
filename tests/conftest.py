"""Every test runs with the guard strict: what we would swallow in production fails here."""

from __future__ import annotations

import os
import signal
from importlib.metadata import entry_points

import pytest

from chegou_otel import _guard
from tests import redis_server

# grpcio, which some tests serve with, starts threads of its own in every forked child unless this is said. Threads are what tests of forks count.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# An installed package brings its plugin itself; straight from the checkout it is named here. Twice is an error of pytest's.
pytest_plugins = [] if entry_points(group="pytest11", name="chegou_otel") else ["chegou_otel.testing.plugin"]


def pytest_configure(config):
    """Processes of several workers of xdist keep what waits for delivery apart, and are not as wide as somebody's terminal."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in a shell's background: processes that tests interrupt would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        state = config.rootpath / ".pytest_cache" / "state"
        os.environ["XDG_STATE_HOME"] = str(state / worker)
        os.environ.pop("COLUMNS", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from tests.scheduling import ByServers

    return ByServers(config, log)


@pytest.fixture(autouse=True)
def strict_guard(request):
    """A failure inside our own code fails the test. ``@pytest.mark.lenient`` behaves as in production."""
    _guard.strict = "lenient" not in request.keywords
    yield
    _guard.strict = False


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    """The port of a real Redis or Valkey, one for the whole run."""
    with redis_server.running(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def redis_client(redis_port):
    """A client of that server, emptied before and after."""
    import redis

    client = redis.Redis(port=redis_port)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture(autouse=True)
def no_worker_s_environment():
    """A worker that a test runs in this very process leaves its name there, and who is begun by a worker speaks less."""
    yield
    for name in ("RQ_WORKER_ID", "RQ_JOB_ID", "RQ_EXECUTION_ID"):
        os.environ.pop(name, None)
