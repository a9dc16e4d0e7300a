from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.delivery.receiver import Receiver, wait_for

PROJECT = Path(__file__).parent / "project"
ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(PROJECT))


def value(item):
    kind = item.value.WhichOneof("value")
    return getattr(item.value, kind) if kind else None


def attributes(message):
    return {item.key: value(item) for item in message.attributes}


class Hub:
    """A receiver, a Redis and workers as processes."""

    def __init__(self, receiver, redis_client, redis_port, folder):
        self.receiver = receiver
        self.redis = redis_client
        self.redis_port = redis_port
        self.folder = folder
        self.env = {
            **{key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))},
            "HUB_REDIS_PORT": str(redis_port), "HUB_ENDPOINT": receiver.url, "HUB_SPOOL": str(folder / "spool"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(PROJECT)]), "DJANGO_SETTINGS_MODULE": "hub_settings",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool"), "OTEL_SERVICE_NAME": "hub",
        }  # fmt: skip
        self.processes = []

    def start(self, *command, **env):
        log = (self.folder / f"worker{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, *command], cwd=PROJECT, env={**self.env, **env}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.processes.append(process)
        return process

    def work(self, *command, timeout=60, **env):
        """Run a worker to its end."""
        process = self.start(*command, **env)
        assert process.wait(timeout) == 0, self.said()
        return process

    def burst(self, worker_class="Worker", **env):
        return self.work("work.py", worker_class, "burst", **env)

    def said(self):
        return "".join(path.read_text() for path in sorted(self.folder.glob("worker*.log")))

    def queue(self):
        import rq

        return rq.Queue(connection=self.redis)

    @property
    def jobs(self):
        """The consumer spans that arrived, in order of their start."""
        found = [span for span, _, _ in self.receiver.spans if span.kind == 5]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def wait_jobs(self, count, timeout=20):
        wait_for(lambda: len(self.jobs) >= count, timeout, f"{count} consumer spans ({len(self.jobs)} came)\n{self.said()}")
        return self.jobs

    @property
    def logs(self):
        return [(scope, log.body.string_value, log) for log, scope, _ in self.receiver.logs]

    def metric(self, name):
        """The last value of a counter or count of a histogram, per series, added up over instances."""
        newest = {}
        for metric, _, resource in self.receiver.metrics:
            if metric.name != name:
                continue
            instance = attributes(resource)["service.instance.id"]
            for point in (*metric.sum.data_points, *metric.histogram.data_points):
                number = point.count if metric.HasField("histogram") else (point.as_int or point.as_double)
                newest[instance, tuple(sorted(attributes(point).items()))] = number
        return newest

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()


@pytest.fixture
def hub(redis_client, redis_port, tmp_path):
    receiver = Receiver()
    made = Hub(receiver, redis_client, redis_port, tmp_path)
    yield made
    made.close()
    receiver.close()
