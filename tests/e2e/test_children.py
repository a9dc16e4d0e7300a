"""Forked processes that ship by themselves: pool workers, preloaded web workers. Their series are their own, and arrive at their end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.delivery.receiver import Receiver
from tests.e2e.accounting import attributes

ROOT = Path(__file__).parents[2]
PROGRAM = """
import multiprocessing, os, sys
import chegou_otel
telemetry = chegou_otel.setup("children", active="always")
from opentelemetry import metrics
counter = metrics.get_meter("children").create_counter("children.ran")

def run(number):
    counter.add(number)

counter.add(1)
if sys.argv[1] == "multiprocessing":
    children = [multiprocessing.get_context("fork").Process(target=run, args=(number,)) for number in (10, 100)]
    [child.start() for child in children], [child.join() for child in children]
else:
    for number in (10, 100):
        if os.fork() == 0:
            run(number)
            sys.exit()  # as gunicorn's workers do: atexit runs
        os.wait()
"""


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def run(receiver, tmp_path, how, **env):
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST"))}
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, how], env={**inherited, **own, **env}, check=True, timeout=60)
    found = {}
    for metric, _, resource in receiver.metrics:
        if metric.name == "children.ran":
            told = attributes(resource)
            found[told["service.instance.id"], told["process.pid"]] = metric.sum.data_points[0].as_int
    return found


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
def test_each_forked_process_is_an_instance_of_its_own_and_counts_its_own(receiver, tmp_path, how):
    found = run(receiver, tmp_path, how)

    assert sorted(found.values()) == [1, 10, 100]
    assert len({instance for instance, _ in found}) == len({pid for _, pid in found}) == 3


def test_an_instance_that_was_named_keeps_its_name(receiver, tmp_path):
    found = run(receiver, tmp_path, "fork", OTEL_RESOURCE_ATTRIBUTES="service.instance.id=mine")

    assert {instance for instance, _ in found} == {"mine"}
    assert len(found) == 3
