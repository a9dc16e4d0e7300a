"""Where segments lie: a folder per service that belongs to us alone.

Only ``os`` calls in here, no helpers of the standard library: it runs on the thread that recorded the first frame.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import time
import zlib
from dataclasses import dataclass
from typing import Final, Literal

ABANDONED_SECONDS: Final = 3600
_latest = 0
_numbers = itertools.count()
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class Storage:
    """Where frames go. ``reason`` says why it is not a better place."""

    kind: Literal["disk", "memory", "none", "sink"]
    path: str | None
    reason: str


def service_hash(service: str) -> int:
    return zlib.crc32(service.encode("utf-8", "surrogatepass"))


def folder_name(service: str) -> str:
    """``service`` as one path component; different services never share one."""
    name = _UNSAFE.sub("_", service)[:64]
    if name != service or name.strip(".") == "":
        name = f"{name.strip('.')}-{service_hash(service):08x}"
    return name


def candidates(service: str, spool_dir: str | None) -> list[str]:
    """Folders to try, best first."""
    name, user = folder_name(service), os.geteuid()
    # A root-owned folder is of no use to workers that gave up root: they get one beside it.
    found = [f"{spool_dir}/{name}", f"{spool_dir}/{name}-{user}"] if spool_dir else []
    environ = os.environ
    state = environ.get("XDG_STATE_HOME") or (f"{environ['HOME']}/.local/state" if environ.get("HOME") else "")
    if state.startswith("/"):
        found.append(f"{state}/chegou-otel/{name}")
    temporary = environ.get("TMPDIR") or "/tmp"  # noqa: S108 (the folder's owner is checked)
    found.append(f"{temporary}/chegou-otel-{user}/{name}")
    return found


def trouble(spool_dir: str) -> str:
    """Why ``spool_dir`` cannot be used, as far as it can be told without making it; empty when it can."""
    place = os.path.abspath(spool_dir)  # noqa: PTH100
    while not os.path.lexists(place):
        place = os.path.dirname(place)  # noqa: PTH120
    if not os.path.isdir(place):  # noqa: PTH112
        return f"{place} is no folder"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} is not writable"


def choose(service: str, spool_dir: str | None) -> tuple[str | None, str]:
    """The first candidate that can be used, and why those before it cannot."""
    reasons = []
    for path in candidates(service, spool_dir):
        try:
            _own(path, verify_parent=not (spool_dir and path.startswith(f"{spool_dir}/")))
        except OSError as error:
            reasons.append(f"{path}: {error.strerror or error}")
        else:
            return path, "; ".join(reasons)
    return None, "; ".join(reasons)


def _own(path: str, *, verify_parent: bool) -> None:
    """Make the folder and its parent when they are absent. Ours are 0700, no symbolic links, and nobody else's."""
    parent = path.rpartition("/")[0]
    make(parent)
    if verify_parent:
        _verify(parent)
    make(path)
    _verify(path)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(13, "not writable")


def make(path: str) -> None:
    """A folder of ours, and what is missing above it."""
    if os.path.isdir(path):  # noqa: PTH112
        return
    above = path.rpartition("/")[0]
    if above:
        make(above)
    try:
        os.mkdir(path, 0o700)  # noqa: PTH102
    except FileExistsError:
        if not os.path.isdir(path):  # noqa: PTH112
            raise


def _verify(path: str) -> None:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(1, "is a symbolic link or no folder")
    if status.st_uid != os.geteuid():
        raise PermissionError(1, f"belongs to user {status.st_uid}")
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)  # noqa: PTH101


def new_name() -> str:
    """For a segment: sorted, a process's segments are in the order in which it made them, whatever its clock does."""
    global _latest
    _latest = max(_latest + 1, time.time_ns())
    return f"{_latest:016x}-{os.getpid()}-{next(_numbers)}"


def segments(path: str) -> list[str]:
    """The segments in a folder, oldest first. Half-made ones whose maker died long ago are removed."""
    try:
        names = os.listdir(path)  # noqa: PTH208
    except OSError:
        return []
    for name in names:
        if name.endswith(".new"):
            _sweep(f"{path}/{name}")
    return [f"{path}/{name}" for name in sorted(names) if name.endswith(".seg")]


def _sweep(path: str) -> None:
    """Remove a half-made segment, unless somebody is still at it, or has just finished it."""
    try:
        if os.stat(path).st_mtime < time.time() - ABANDONED_SECONDS:  # noqa: PTH116
            os.unlink(path)  # noqa: PTH108
    except OSError:
        return


def allocate(fd: int, size: int) -> None:
    """Real blocks, not a sparse file: a page without a block behind it is SIGBUS on a full disk."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        zeros = bytes(1 << 16)
        for offset in range(0, size, len(zeros)):
            os.pwrite(fd, zeros[: size - offset], offset)
