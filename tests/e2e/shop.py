"""A service as real processes: a small Django project, an OTLP receiver, notes of what was recorded, ledgers of what became of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.delivery.receiver import Receiver, wait_for

PROJECT = Path(__file__).parent / "proving"
ROOT = Path(__file__).parents[2]
#: A failure prints it; SHOP_SEED repeats the moments as far as the machine lets it.
SEED = int(os.environ.get("SHOP_SEED") or random.randrange(1 << 32))


class Shop:
    """A service whose processes die: its receiver, its notes of what was recorded, its ledgers."""

    def __init__(self, folder, redis_port):
        self.folder = folder
        self.receiver = Receiver()
        self.random = random.Random(SEED)
        self.notes_path = folder / "notes"
        self.notes_path.touch()
        self.ledgers_path = folder / "ledgers"
        self.url = f"redis://127.0.0.1:{redis_port}/0"
        self.env = {
            **{key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))},
            "SHOP_DATABASE": str(folder / "db.sqlite3"), "SHOP_REDIS_PORT": str(redis_port), "SHOP_NOTES": str(self.notes_path),
            "SHOP_LEDGERS": str(self.ledgers_path), "DJANGO_SETTINGS_MODULE": "shop_settings", "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url, "PYTHONPATH": os.pathsep.join([str(ROOT), str(PROJECT)]),
        }  # fmt: skip
        self.processes = []

    def start(self, *command, **env):
        with (self.folder / "said.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=PROJECT,
                env={**self.env, **env},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def said(self):
        return f"seed {SEED}\n{(self.folder / 'said.log').read_text()[-4000:]}"

    def notes(self, offset=0):
        with self.notes_path.open("rb") as file:
            file.seek(offset)
            return file.read().decode().splitlines()

    def moment(self, most=0.04):
        time.sleep(self.random.uniform(0, most))

    def wait_noted(self, pid, offset=0):
        """Wait until this process has noted some records behind ``offset``, then a moment: it is in the midst of work."""
        enough = self.random.randrange(1, 150)
        noted = lambda: sum(f"n.{pid}." in line for line in self.notes(offset)) >= enough  # noqa: E731
        wait_for(noted, 20, f"records of {pid}\n{self.said()}")
        self.moment()

    def web_workers(self, master, killed):
        return [worker.pid for worker in psutil.Process(master.pid).children() if worker.pid not in killed]

    def wait_web_workers(self, master, killed, count=2):
        """All are at work. gunicorn loses a SIGTERM that meets a worker in its first milliseconds, before its own handlers are in place."""
        offset = self.notes_path.stat().st_size
        enough = lambda: found if len(found := self.web_workers(master, killed)) >= count else None  # noqa: E731
        for pid in wait_for(enough, 20, f"{count} web workers"):
            self.wait_noted(pid, offset)

    def stop(self, process, timeout=30):
        process.terminate()
        assert process.wait(timeout) in (0, -signal.SIGTERM), self.said()

    def next_process(self):
        """Start the next process of the service: it adopts what lies there."""
        process = self.start("-c", "import django; django.setup(); import records; records.next_process()")
        assert process.wait(60) == 0, self.said()

    def check(self, label, kills):
        """Everything noted arrived; what came twice is in the ledger as ambiguous."""
        noted = Counter(self.notes())
        wanted = {line.partition(" ")[::2] for line in noted if not line.startswith("done")}

        def arrived():
            spans = list(self.receiver.spans)
            parents = Counter(span.parent_span_id.hex() for span, _, _ in spans if span.name.startswith("SELECT"))
            return {
                "span": Counter(span.name for span, _, _ in spans),
                "log": Counter(log.body.string_value for log, _, _ in list(self.receiver.logs)),
                "sql": parents,
            }

        def missing():
            found = arrived()
            return [(kind, name) for kind, name in wanted if not found[kind][name]]

        deadline = time.monotonic() + 15
        while (lost := missing()) and time.monotonic() < deadline:
            time.sleep(0.2)
        found = arrived()
        assert not lost, f"{len(lost)} of {len(wanted)} lost, such as {lost[:3]}\n{self.said()}"
        twice = Counter()
        ids = Counter(span.span_id for span, _, _ in self.receiver.spans)
        twice["traces"] = sum(count > 1 for count in ids.values())
        print(f"recorded again: {self.told_by_several()}")
        twice["logs"] = sum(count > 1 for name, count in found["log"].items() if name.startswith("n."))
        ledgers = [json.loads(line) for line in self.ledgers_path.read_text().splitlines()]
        ambiguous = {name: sum(each[name]["ambiguous"] for each in ledgers) for name in twice}
        dropped = [each[name]["dropped"] for each in ledgers for name in ("traces", "logs", "metrics") if each[name]["dropped"]]
        print(f"\n{label}: {kills} kills, {len(wanted)} records, 0 lost, twice {dict(twice)}, ambiguous {ambiguous}, seed {SEED}")
        assert all(twice[name] <= ambiguous[name] for name in twice), (dict(twice), ambiguous, self.told_by_several(), self.said())
        assert not dropped
        return found

    def told_by_several(self):
        """Spans whose copies differ, so they were not sent again but recorded again, and the processes that did."""
        copies = {}
        for span, _, resource in list(self.receiver.spans):
            by = attributes(resource).get("process.pid"), span.end_time_unix_nano, attributes(span).get("rq.job.status")
            copies.setdefault(span.span_id, Counter())[by] += 1
        return [list(each.items()) for each in copies.values() if len(each) > 1]

    @property
    def jobs(self):
        """The consumer spans; one that came twice (see ``check``) is one."""
        return list({span.span_id: span for span, _, _ in self.receiver.spans if span.kind == 5}.values())

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.receiver.close()


class Customers:
    """Requests, until told to stop. A broken connection is what a kill looks like from outside."""

    def __init__(self, port, count=3, pause=0.0):
        self.port, self.pause = port, pause
        self.answered = 0
        self._stop = threading.Event()
        self.threads = [threading.Thread(target=self._buy) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _buy(self):
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/buy/")
                self.answered += connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                self._stop.wait(0.02)
            finally:
                connection.close()
            self._stop.wait(self.pause)

    def leave(self):
        self._stop.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def shop(tmp_path, redis_client, redis_port):
    made = Shop(tmp_path, redis_port)
    made.redis = redis_client
    yield made
    made.close()


def attributes(span):
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}
