"""``SpawnWorker``: each work-horse is a Python of its own, and tells what a forked one would."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.integrations.rq.conftest import attributes

pytestmark = pytest.mark.slow
SCRIPTS = Path(sys.executable).parent
JOBS = 4


@pytest.fixture
def producer(telemetry):
    return telemetry


def work(hub, *before, **env):
    rq = (str(SCRIPTS / "rq"), "worker", "-c", "nameless_settings", "--worker-class", "rq.worker.SpawnWorker", "--burst")
    hub.work(*before, *rq, **env)


def check(hub, service):
    """Everything of every job came, as its worker's, and nothing else."""
    hub.wait_jobs(JOBS)
    resources = [attributes(resource) for span, _, resource in hub.receiver.spans if span.kind == 5]
    bodies = [body for _, body, _ in hub.logs]

    assert [attributes(span)["rq.job.status"] for span in hub.jobs] == ["finished"] * JOBS
    assert {(found["service.name"], found["chegou.role"]) for found in resources} == {(service, "worker")}
    assert len({found["service.instance.id"] for found in resources}) == 1
    assert [body for body in bodies if body.startswith("told by")] == [f"told by {number}" for number in range(JOBS)]
    assert sum(hub.metric("odd.count").values()) == JOBS
    assert sum(hub.metric("rq.job.executions").values()) == JOBS
    assert {span.name for span, _, _ in hub.receiver.spans} == {"process default"}  # RQ's own commands are none


@pytest.fixture
def enqueued(hub, producer):
    for number in range(JOBS):
        hub.queue().enqueue("odd_jobs.tells", number)


@pytest.mark.usefixtures("enqueued")
@pytest.mark.parametrize("service", ["s", "sh", "sho", "shop"])
def test_every_job_is_told_however_long_the_service_s_name(hub, service):
    work(hub, OTEL_SERVICE_NAME=service)

    check(hub, service)


@pytest.mark.usefixtures("enqueued")
def test_the_service_need_not_be_named_and_arguments_may_be_more_than_plain_values(hub):
    del hub.env["OTEL_SERVICE_NAME"], hub.env["DJANGO_SETTINGS_MODULE"]
    work(hub)

    check(hub, "nameless_settings")


@pytest.mark.usefixtures("enqueued")
def test_nor_where_nobody_calls_setup(hub):
    del hub.env["OTEL_SERVICE_NAME"], hub.env["DJANGO_SETTINGS_MODULE"]
    work(hub, "-m", "chegou_otel", "run", "--", sys.executable, HUB_NO_SETUP="1")

    check(hub, "nameless_settings")


def test_one_that_dies_before_it_can_say_a_word_has_run_as_long_as_it_ran(hub, producer, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if sys.orig_argv[1:2] == ['-c'] and 'work_horse' in sys.orig_argv[2]:\n"
        "    time.sleep(1)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    hub.queue().enqueue("truth_jobs.ok")
    work(hub, PYTHONPATH=os.pathsep.join([str(tmp_path), hub.env["PYTHONPATH"]]))
    (span,) = hub.wait_jobs(1)

    assert attributes(span)["rq.job.status"] == "killed"
    assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 >= 1


def test_one_with_metrics_only_counts_once(hub, producer):
    """A process that has metrics only starts its courier at once; a work-horse has none."""
    hub.queue().enqueue("odd_jobs.counts_for_a_while")
    work(hub, CHEGOU_OTEL_TRACES="false", CHEGOU_OTEL_LOGS="false")

    assert sum(hub.metric("odd.count").values()) == 20


@pytest.mark.usefixtures("enqueued")
def test_what_never_records_does_not_in_its_work_horses(hub):
    work(hub, CHEGOU_OTEL_ACTIVE="never")

    assert not (hub.receiver.spans or hub.receiver.logs or hub.receiver.metrics)
    assert hub.queue().count == 0


@pytest.mark.usefixtures("enqueued")
def test_a_service_that_is_switched_off_is_off_in_its_work_horses(hub):
    del hub.env["OTEL_SERVICE_NAME"], hub.env["DJANGO_SETTINGS_MODULE"]
    off = hub.folder / "spool" / "nameless_settings@off"
    off.parent.mkdir(exist_ok=True)
    off.touch()
    run = ("-m", "chegou_otel", "run", "--", sys.executable)
    work(hub, *run, HUB_NO_SETUP="1")
    off.unlink()
    hub.queue().enqueue("odd_jobs.tells", 99)
    work(hub, *run, HUB_NO_SETUP="1")
    hub.wait_jobs(1)

    assert [body for _, body, _ in hub.logs if body.startswith("told by")] == ["told by 99"]
    assert len(hub.jobs) == 1


def test_settings_are_not_on_the_command_line_nor_handed_on(hub, producer):
    """A proxy has a password, and everybody can read the command line."""
    job = hub.queue().enqueue("odd_jobs.looks_at_itself")
    work(hub)
    line, environment = job.return_value(refresh=True)

    assert "chegou_otel" in line
    assert "matricula" not in line + str(environment)


@pytest.mark.usefixtures("enqueued")
def test_what_no_environment_takes_stops_no_job(hub):
    """One variable may have 128 KiB: such a work-horse runs without telemetry, and its worker tells what Redis says."""
    work(hub, OTEL_RESOURCE_ATTRIBUTES=f"big={'x' * 70_000}")
    hub.wait_jobs(JOBS)

    assert [attributes(span)["rq.job.status"] for span in hub.jobs] == ["finished"] * JOBS
