"""How a measured process is told what to do: `go COUNT` lines on standard input, then `end`. Each is answered by a line."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import usage
import variants


def say(answer: object) -> None:
    """A line of JSON."""
    print(json.dumps(answer), flush=True)


def obey(work: Callable[[Iterable[int]], None]) -> dict[str, Any]:
    """Do what is ordered; the CPU that it took, the last flush included, per unit of work."""
    say("ready")
    count = 0
    in_thread = 0.0
    cpu, faults = usage.cpu(), usage.faults()
    for line in sys.stdin:
        order, _, number = line.partition(" ")
        if order.strip() == "end":
            break
        thread = time.thread_time()
        work(range(count, count + int(number)))
        in_thread += time.thread_time() - thread
        count += int(number)
        say("done")
    variants.flush()
    variants.check()
    return {
        "count": count,
        "cpu_us": (usage.cpu() - cpu) / count * 1e6,
        "thread_us": in_thread / count * 1e6,
        "faults": (usage.faults() - faults) / count,
        "ended": usage.memory(),
    }
