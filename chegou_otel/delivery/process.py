"""Who is alive: a process is named by its ID and its start time, since IDs are used again."""

from __future__ import annotations

import os


def started(pid: int | str = "self") -> int:
    """Start time in clock ticks since boot; 0 where there is no /proc, no such process, or only its zombie."""
    try:
        # Not ``open()``: making its buffer swallows what a signal handler raises meanwhile.
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
    except OSError:
        return 0
    finally:
        os.close(fd)
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid: int, start: int) -> bool:
    return pid > 0 and start > 0 and started(pid) == start
