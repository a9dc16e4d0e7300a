"""Where the spool lies, and whether it outlives the container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

#: File systems that end with the container, and those that end with the machine's next start.
_LAYERS: Final = frozenset({"overlay", "aufs", "fuse-overlayfs", "devicemapper"})
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_MARKS: Final = ("/.dockerenv", "/run/.containerenv")
_WORDS: Final = ("docker", "kubepods", "containerd", "libpod", "lxc")


class Mount(NamedTuple):
    """The file system that a path lies on."""

    point: str
    kind: str


def mount_of(path: str, mountinfo: str) -> Mount:
    """The mount with the longest matching point, out of ``/proc/self/mountinfo``."""
    best = Mount("/", "unknown")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or not kinds:  # noqa: PLR2004 - the fifth field is the mount point
            continue
        point = fields[4].replace("\\040", " ")
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best.point):
            best = Mount(point, kinds[0])
    return best


def in_container(root: str = "/") -> bool:
    """Whether this is a container, as far as it can be told from the inside."""
    if any(Path(root, mark.lstrip("/")).exists() for mark in _MARKS) or "KUBERNETES_SERVICE_HOST" in os.environ:
        return True
    return any(word in _read(f"{root}/proc/1/cgroup") for word in _WORDS)


def lasting(path: str) -> tuple[str, bool]:
    """How long a folder lasts, in words, and whether that is long enough."""
    mount = mount_of(os.path.realpath(path), _read("/proc/self/mountinfo"))
    return judge(mount, container=in_container())


def judge(mount: Mount, *, container: bool) -> tuple[str, bool]:
    """The same of a known mount."""
    if mount.kind in _MEMORY:
        return f"{mount.kind}: gone with the next start of the machine", False
    if not container:
        return f"{mount.kind}: stays", True
    if mount.kind in _LAYERS or mount.point == "/":
        return f"{mount.kind}: ends with this container", False
    return f"{mount.kind} mounted at {mount.point}: outlives this container", True


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
