"""The books of a service's jobs: what was enqueued, what each execution noted that it recorded, and what arrived."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import redis
import rq

from tests.delivery.receiver import wait_for

PROJECT = Path(__file__).parent / "floor"
ROOT = Path(__file__).parents[2]
NEXT = "import floor_telemetry as f, logging; logging.getLogger('next').warning('next'); f.telemetry.flush(20)"


class Floor:
    """A service's workers as real processes, and a desk that enqueues."""

    def __init__(self, folder, redis_port, endpoint):
        self.folder = folder
        self.redis = redis.Redis(port=redis_port)
        self.redis.flushall()
        self.queue = rq.Queue(connection=self.redis)
        self.url = f"redis://127.0.0.1:{redis_port}/0"
        self.notes_path = folder / "notes"
        self.notes_path.touch()
        self.ledgers_path = folder / "ledgers"
        self.env = {
            **{key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO", "RQ_"))},
            "FLOOR_REDIS_PORT": str(redis_port), "FLOOR_NOTES": str(self.notes_path), "FLOOR_LEDGERS": str(self.ledgers_path),
            "DJANGO_SETTINGS_MODULE": "floor_settings", "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "floor",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(PROJECT)]),
        }  # fmt: skip
        self.processes = []
        self.desk = None
        #: What was enqueued: (function, job ID, correlation ID).
        self.jobs = []

    # -- processes

    def start(self, *command, pipes=False, **env):
        log = (self.folder / "said.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, *command], cwd=PROJECT, env={**self.env, **env}, start_new_session=True, text=True,
            stdin=subprocess.PIPE if pipes else None, stdout=subprocess.PIPE if pipes else log, stderr=log,
        )  # fmt: skip
        log.close()
        self.processes.append(process)
        return process

    def work(self, name="Worker", *, burst=False, **env):
        return self.start("floor_work.py", name, *(["burst"] if burst else []), **env)

    def enqueue(self, *names):
        """Let the desk enqueue jobs by these names; their IDs."""
        if self.desk is None:
            self.desk = self.start("floor_desk.py", pipes=True, FLOOR_SERVICE="desk", OTEL_SERVICE_NAME="desk")
        self.desk.stdin.write(" ".join(names) + "\n")
        self.desk.stdin.flush()
        line = self.desk.stdout.readline()
        assert line, self.said()
        self.jobs += (said := [tuple(each) for each in json.loads(line)])
        return [job for _, job, _ in said]

    def said(self):
        return (self.folder / "said.log").read_text()[-6000:]

    def end(self, process, timeout=40):
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{process.args} did not end\n{self.said()}") from None

    def terminate(self, process, timeout=40):
        """A warm shutdown."""
        process.terminate()
        return self.end(process, timeout)

    def close_desk(self):
        self.desk.stdin.close()
        assert self.end(self.desk) == 0, self.said()

    def next_process(self):
        """The next process of the service takes over what lies there."""
        assert self.end(self.start("-c", NEXT)) == 0, self.said()

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for note in self.notes():
                if psutil.pid_exists(note["pid"]) and note["pid"] != process.pid:
                    self._kill_leftover(note["pid"])
            process.wait()
        self.redis.close()

    @staticmethod
    def _kill_leftover(pid):
        """A work-horse is in a process group of its own; only one that is ours still has its notes' file open."""
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if "FLOOR_NOTES" in psutil.Process(pid).environ():
                os.kill(pid, signal.SIGKILL)

    # -- what is going on

    def notes(self):
        with self.notes_path.open() as file:
            return [json.loads(line) for line in file if line.endswith("\n")]

    def wait_note(self, ending, count=1, timeout=30):
        """The newest note of such a job, once there are so many."""

        def noted():
            found = [note for note in self.notes() if note["ending"] == ending]
            return found[-1] if len(found) >= count else None

        return wait_for(noted, timeout, f"a note of {ending}\n{self.said()}")

    def states(self):
        """Of the workers that live."""
        known = [self.redis.hmget(key, "pid", "state") for key in self.redis.smembers("rq:workers")]
        return [state for pid, state in known if pid and psutil.pid_exists(int(pid))]

    def wait_workers(self, count, timeout=30):
        wait_for(lambda: len([state for state in self.states() if state]) >= count, timeout, f"{count} workers\n{self.said()}")

    def wait_idle(self, timeout=60):
        """Nothing waits and nobody works: all wait for a job, none has taken one and not said so yet."""

        def idle():
            states = self.states()
            waiting = self.redis.info("clients")["blocked_clients"]
            return not self.queue.get_job_ids() and set(states) == {b"idle"} and waiting >= len(states)

        def for_long():
            return idle() and (time.sleep(0.05), idle())[1]

        wait_for(for_long, timeout, f"an idle worker\n{self.said()}")

    def wait_gone(self, pid, timeout=20):
        wait_for(
            lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", timeout, f"the end of {pid}\n{self.said()}"
        )

    def wait_idle_or_gone(self, process):
        """The worker has dealt with its job: it waits for the next, or ended.

        Its state says so somewhat early: redis-py lets go what a signal raises while a pipeline is taken apart, and the worker waits on.
        """
        waits = lambda: b"busy" not in self.states() and self.redis.info("clients")["blocked_clients"] > 0  # noqa: E731
        wait_for(lambda: process.poll() is not None or waits(), 30, f"a worker at rest\n{self.said()}")

    def expire_heartbeats(self):
        """Let RQ take what is started for abandoned now, not in a minute and a half."""
        registry = self.queue.started_job_registry
        for member in self.redis.zrange(registry.key, 0, -1):
            self.redis.zadd(registry.key, {member: 1})
        for key in self.redis.scan_iter("rq:clean_registries:*"):
            self.redis.delete(key)

    def ledgers(self):
        return [json.loads(line) for line in self.ledgers_path.read_text().splitlines()] if self.ledgers_path.exists() else []


class Books:
    """What arrived, sorted by what a job's notes can be compared with."""

    def __init__(self, floor, spans, logs, metrics):
        self.jobs = list(floor.jobs)
        self.notes = [note for note in floor.notes() if "key" in note]
        self.ledgers = floor.ledgers()
        self.said = floor.said()
        spans, logs = list(spans), list(logs)
        #: By signal: what came more than once, and how much of it the ledgers call ambiguous. Repeats are dropped here.
        self.twice, self.ambiguous = {}, {}
        self.all_spans = self._once("traces", [(span.span_id, span) for span, _, _ in spans])
        lines = self._once("logs", [(attributes(log)["log.record.uid"], log) for log, _, _ in logs])
        self.spans = {}
        for span in self.all_spans:
            self.spans.setdefault(span.span_id.hex(), []).append(span)
        self.consumers = [span for span in self.all_spans if span.kind == 5]
        self.logs = {}
        for log in lines:
            self.logs.setdefault(log.body.string_value, []).append(log)
        self.inner = Counter(span.name for span in self.all_spans if span.name.startswith("inner "))
        self._metrics = metrics

    def _once(self, name, items):
        found = dict(items)
        self.twice[name] = sum(count > 1 for count in Counter(key for key, _ in items).values())
        self.ambiguous[name] = sum(line[name]["ambiguous"] for line in self.ledgers)
        return list(found.values())

    def of(self, ending):
        """The notes of a job's executions, in their order."""
        return [note for note in self.notes if note["ending"] == ending]

    def odd(self):
        """Executions that were told without a note, noted without being told, or told twice: for whoever reads a failure."""
        noted, told = {note["span"]: note for note in self.notes}, Counter(span.span_id.hex() for span in self.consumers)
        names = {job: name for name, job, _ in self.jobs}
        tales = [(span.span_id.hex(), names.get(attributes(span)["messaging.message.id"]), attributes(span)) for span in self.consumers]
        return {
            "without a note": [tale for tale in tales if tale[0] not in noted],
            "twice": [tale for tale in tales if told[tale[0]] > 1],
            "not told": [note for span, note in noted.items() if span not in told],
            "said": self.said,
        }

    def totals(self, name, *labels):
        """A counter's values (a histogram's counts) by some labels, added up over all series of all instances."""
        newest = {}
        for metric, _, resource in self._metrics:
            if metric.name == name:
                instance = attributes(resource)["service.instance.id"]
                for point in (*metric.sum.data_points, *metric.histogram.data_points):
                    number = point.count if metric.HasField("histogram") else (point.as_int or point.as_double)
                    series = tuple(sorted(attributes(point).items()))
                    newest[instance, series] = max(newest.get((instance, series), 0), number)
        found = Counter()
        for (_, series), number in newest.items():
            found[tuple(dict(series).get(label) for label in labels)] += number
        return found


def attributes(message):
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value") for item in message.attributes}
