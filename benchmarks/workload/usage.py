"""What a process has used so far."""

import os
import resource
from typing import Any


def cpu() -> float:
    """Seconds of CPU of all threads and of children that have ended, user and system."""
    return sum(used.ru_utime + used.ru_stime for used in _usages())


def faults() -> int:
    """Pages that had to be mapped or copied, children included."""
    return sum(used.ru_minflt for used in _usages())


def memory() -> dict[str, Any]:
    """Resident memory and threads, as the kernel sees them."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return {"rss_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "threads": len(os.listdir("/proc/self/task"))}


def _usages() -> list[resource.struct_rusage]:
    return [resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)]
