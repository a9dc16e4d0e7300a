"""A service behind a socket that breaks: its processes, what they say, and whether the books agree with what arrived."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.delivery.faults import FaultySocket
from tests.delivery.receiver import Receiver, wait_for

PROJECT = Path(__file__).parent / "proving"
ROOT = Path(__file__).parents[2]
SIGNALS = ("traces", "logs", "metrics")


class Service:
    """One spool, one receiver, one faulty socket in front of it."""

    def __init__(self, folder, tls=None, **env):
        self.folder = folder
        self.receiver = Receiver()
        self.socket = FaultySocket(self.receiver.port, tls)
        self.spool = folder / "spool"
        self.env = {
            **{key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))},
            "CHEGOU_OTEL_SPOOL_DIR": str(self.spool), "CHEGOU_OTEL_ACTIVE": "always", "OTEL_METRIC_EXPORT_INTERVAL": "300",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.socket.url, "PYTHONPATH": os.pathsep.join([str(ROOT), str(PROJECT)]), **env,
        }  # fmt: skip
        self.processes = []
        #: Of processes that ended.
        self.ledgers = []

    def start(self, **env):
        process = Process(self, len(self.processes), env)
        self.processes.append(process)
        return process

    def said(self):
        return "\n".join(process.said() for process in self.processes)[-4000:]

    def close(self):
        for process in self.processes:
            process.kill()
        self.socket.close()
        self.receiver.close()

    def check(self):
        """0 unaccounted: what was created was delivered, rejected or dropped, and what is said to be delivered is what arrived.

        Returns what became of each signal's items, all processes together."""
        arrived = arrivals(self.receiver)
        found = {}
        for signal in SIGNALS:
            total = {
                name: sum(each[signal][name] for each in self.ledgers) for name in ("created", "delivered", "rejected", "ambiguous", "held")
            }
            total["dropped"] = sum((Counter(each[signal]["dropped"]) for each in self.ledgers), Counter())
            copies = arrived[signal]
            repeats = sum(count - 1 for count in copies.values())
            twice = sum(count > 1 for count in copies.values())
            report = f"{signal}: {total}, {len(copies)} arrived, {twice} of them more than once ({repeats} copies)\n{self.said()}"
            assert total["held"] == 0, report
            assert total["created"] == total["delivered"] + total["rejected"] + total["dropped"].total(), report
            assert len(copies) == total["delivered"], report
            assert twice <= total["ambiguous"] <= total["delivered"], report
            found[signal] = total
        served = sum(process.served for process in self.processes)
        assert found["traces"]["created"] == 2 * served, (found, served)
        assert found["logs"]["created"] >= served
        return found


class Process:
    def __init__(self, service, number, env):
        self._said = service.folder / f"said.{number}"
        self._ledger = service.folder / f"ledger.{number}"
        self._service = service
        self.served = 0
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, str(PROJECT / "faulty.py")],
                env={**service.env, "FAULTY_LEDGER": str(self._ledger), **env},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
            )  # fmt: skip
        self.pid = self._process.pid
        self._answer()

    def tell(self, order):
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._answer()

    def go(self, count):
        """Serve; how long each request took."""
        times = self.tell(f"go {count}")
        self.served += count
        return times

    def look(self):
        return self.tell("look")

    def flush(self, seconds=20):
        assert self.tell(f"flush {seconds}"), f"{self.look()}\n{self._service.said()}"

    def wait(self, condition, what, seconds=20):
        return wait_for(lambda: condition(self.look()["ledger"]), seconds, f"{what}\n{self.said()}")

    def end(self):
        """Let it end by itself; how long that took."""
        began = time.monotonic()
        self._process.stdin.close()
        code = self._process.wait(60)
        seconds = time.monotonic() - began
        assert code == 0, (code, self.said())
        self._service.ledgers.append(json.loads(self._ledger.read_text()))
        return seconds

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def said(self):
        return self._said.read_text()

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, (self._process.wait(20), self.said())
        return json.loads(line)


def arrivals(receiver):
    """How often each item arrived, in the order of arrival."""
    return {
        "traces": Counter(span.span_id for span, _, _ in list(receiver.spans)),
        "logs": Counter(log.SerializeToString() for log, _, _ in list(receiver.logs)),
        "metrics": Counter((metric.SerializeToString(), resource.SerializeToString()) for metric, _, resource in list(receiver.metrics)),
    }
