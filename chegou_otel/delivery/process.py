"""Who is alive: a process is named by its ID and its start time, since IDs are used again."""

from __future__ import annotations

import functools
import os
import time
from typing import Final

#: Where there is no such clock there is no /proc either, and nobody is known to live.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_TICKS: Final = os.sysconf("SC_CLK_TCK")


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


def moment() -> int:
    """Now, on the clock of start times: no file is read for it, which after a fork costs more than much else."""
    return time.clock_gettime_ns(_CLOCK) * _TICKS // 10**9 if _is_true() else started()


@functools.cache
def _is_true() -> bool:
    """Whether that clock is the kernel's."""
    return 0 < started() <= time.clock_gettime_ns(_CLOCK) * _TICKS // 10**9


def alive(pid: int, since: int) -> bool:
    """Whether the process that had this ID at ``since`` still has it: one that took it over began later."""
    return pid > 0 and 0 < started(pid) <= since


def another(pid: int, start: int) -> bool:
    """Whether that process lives, and is not this one."""
    return pid not in (0, os.getpid()) and alive(pid, start)
