"""What an execution used: CPU seconds, and how far its memory grew.

The work-horse measures itself at both ends. For one that was killed its parent has ``wait4``'s ``rusage`` and what the work-horse
wrote when it began. The raw peak says little after a fork, because it includes the pages inherited from the parent; what says
something is its growth over the resident memory at the start.
"""

from __future__ import annotations

import os
import re
import resource
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE: Final = resource.getpagesize()
#: The kernel counts resident pages per CPU and adds them up now and then.
_SLACK: Final = 1 << 20
_HIGH_WATER: Final = re.compile(rb"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class Start(NamedTuple):
    """What the process had used when the execution began.

    Attributes:
        cpu: Seconds, with children that were waited for.
        resident: Bytes of resident memory; 0 where the system does not tell.
        peak: Bytes, as ``getrusage`` tells. Across an ``exec`` that is the peak of the process that spawned this one.
        high_water: Bytes, the peak of this very address space, where ``peak`` is another's or an older one.
    """

    cpu: float
    resident: int
    peak: int
    high_water: int

    @property
    def hidden(self) -> bool:
        """Whether the peak was so high before that it will not tell what the execution adds."""
        return self.peak > self.resident + _SLACK


NOTHING: Final = Start(0.0, 0, 0, 0)


def begin() -> Start:
    own = resource.getrusage(resource.RUSAGE_SELF)
    peak, resident = own.ru_maxrss * 1024, _resident()
    return Start(_cpu(own), resident, peak, _high_water() if resident and peak > resident + _SLACK else resident)


def begin_forked() -> Start:
    """In a process that was just forked: it has no children, and its peak is what is resident, known without a look into /proc."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    resident = own.ru_maxrss * 1024
    return Start(own.ru_utime + own.ru_stime, resident, resident, resident)


def spent(start: Start) -> dict[str, Any]:
    """The attributes of an execution that ends in this process."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    peak = own.ru_maxrss * 1024
    found: dict[str, Any] = {"rq.job.cpu_time": _seconds(_cpu(own) - start.cpu), "rq.job.peak_memory": peak}
    if start.resident:
        found["rq.job.memory_growth"] = max(0, _top(start, peak) - start.resident)
    return found


def _top(start: Start, peak: int) -> int:
    """The highest resident memory during the execution; at least what is resident now."""
    if peak > start.peak or not start.hidden:
        return peak
    # An older peak hides this one: that of the parent that spawned us, or of an earlier job in this process.
    high_water = _high_water()
    return high_water if high_water > start.high_water else _resident()


def of_dead(usage: Any, start: Sequence[float] | None) -> dict[str, Any]:
    """The attributes of an execution whose process the kernel accounted for. ``start``: what it wrote, if it came so far."""
    peak = usage.ru_maxrss * 1024
    found: dict[str, Any] = {"rq.job.cpu_time": _seconds(usage.ru_utime + usage.ru_stime), "rq.job.peak_memory": peak}
    if start is None:
        return found
    began = Start(*start)  # type: ignore[arg-type]
    found["rq.job.cpu_time"] = _seconds(found["rq.job.cpu_time"] - began.cpu)
    if began.resident and (peak > began.peak or not began.hidden):
        found["rq.job.memory_growth"] = max(0, peak - began.resident)
    return found


def _seconds(used: float) -> float:
    """To the microsecond, which is what the kernel counts in."""
    return round(max(0.0, used), 6)


def _cpu(own: resource.struct_rusage) -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _resident() -> int:
    fields = _read("/proc/self/statm").split()
    return int(fields[1]) * _PAGE if len(fields) > 1 else 0


def _high_water() -> int:
    found = _HIGH_WATER.search(_read("/proc/self/status"))
    return int(found[1]) * 1024 if found else 0


def _read(path: str) -> bytes:
    # Not ``open()``: making its buffer swallows what a signal handler raises meanwhile.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
