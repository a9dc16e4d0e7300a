"""What is measured of jobs: by which labels, added up where, and as the documentation says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import rq

import chegou_otel
from chegou_otel.integrations.rq.reading import GAUGES
from chegou_otel.signals.metrics import Registry
from chegou_otel.testing import capture
from tests.delivery.receiver import wait_for
from tests.integrations.rq.conftest import attributes

DOCS = Path(__file__).parents[3] / "docs"


def points(hub, name):
    """The last state of every series: instance and labels → point."""
    newest = {}
    for metric, _, resource in list(hub.receiver.metrics):
        if metric.name == name:
            for point in (*metric.sum.data_points, *metric.histogram.data_points, *metric.gauge.data_points):
                newest[attributes(resource)["service.instance.id"], tuple(sorted(attributes(point).items()))] = point
    return newest


@pytest.mark.parametrize("worker", ["Worker", "SimpleWorker"])
def test_a_hundred_jobs_are_one_series_that_reads_a_hundred(hub, worker):
    jobs = 100 if worker == "Worker" else 20
    queue = hub.queue()
    with chegou_otel.use_correlation_id("order-0815"):
        ids = [queue.enqueue("measured_jobs.counted").id for _ in range(jobs)]
    process = hub.start("measuring.py", worker)
    assert process.wait(90) == 0, hub.said()
    spans = hub.wait_jobs(jobs)

    (counted,) = points(hub, "hub.counted").values()
    assert counted.as_int == jobs
    (sizes,) = points(hub, "hub.sizes").values()
    assert (sizes.count, sizes.sum) == (jobs, 3 * jobs)
    for name in ("messaging.process.duration", "rq.job.queue_wait", "rq.job.cpu_time"):
        (point,) = points(hub, name).values()
        assert point.count == jobs, name
    (executions,) = points(hub, "rq.job.executions").values()
    assert (executions.as_int or executions.as_double) == jobs
    # What a process says of itself is the worker's: no work-horse says it, too.
    (pid,) = points(hub, "hub.pid").values()
    assert pid.as_int == process.pid

    secrets = {"order-0815", *ids, *(attributes(span)["rq.worker.name"] for span in spans)}
    labels = {str(text) for metric, _, _ in hub.receiver.metrics for series in points(hub, metric.name) for _, text in series[1]}
    assert labels & secrets == set()


def work(redis_client, *jobs, **options):
    """Run jobs here, to their end."""
    queue = rq.Queue(connection=redis_client)
    for name, *args in jobs:
        queue.enqueue(f"measured_jobs.{name}", *args, **options)
    rq.SimpleWorker([queue], connection=redis_client).work(burst=True)


def labels_of(telemetry, name):
    return [point.attributes for point in telemetry.metrics[name].points]


def test_outcomes_retries_and_errors_by_function_and_queue(telemetry, redis_client):
    work(redis_client, ("report_sales",), ("refuse", "x"))
    work(redis_client, ("refuse", "x"), retry=rq.Retry(max=1))

    base = {"messaging.system": "rq", "messaging.destination.name": "default"}
    found = {(p.attributes["rq.job.function"], p.attributes["rq.job.status"]): p for p in telemetry.metrics["rq.job.executions"].points}
    assert {key: point.value for key, point in found.items()} == {
        ("measured_jobs.report_sales", "finished"): 1, ("measured_jobs.refuse", "failed"): 2, ("measured_jobs.refuse", "retried"): 1,
    }  # fmt: skip
    assert base.items() <= next(iter(found.values())).attributes.items()
    (retries,) = telemetry.metrics["rq.job.retries"].points
    assert retries.value == 1
    assert retries.attributes == {**base, "rq.job.function": "measured_jobs.refuse", "error.type": "LookupError"}
    failed = [each for each in labels_of(telemetry, "messaging.process.duration") if each["rq.job.status"] == "failed"]
    assert [each["error.type"] for each in failed] == ["LookupError"]


CATEGORIES = ["*.report_*=Report Generation", "measured_jobs.*=Data Collection", "*=Never"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (CATEGORIES, {"measured_jobs.report_sales": "Report Generation", "measured_jobs.counted": "Data Collection"}),
        (CATEGORIES[:1], {"measured_jobs.report_sales": "Report Generation", "measured_jobs.counted": "other"}),
        ([], {"measured_jobs.report_sales": None, "measured_jobs.counted": None}),
    ],
)
def test_the_first_pattern_that_fits_is_a_jobs_category(redis_client, setting, expected):
    with capture(rq_job_categories=setting) as telemetry:
        work(redis_client, ("report_sales",), ("counted",))
        metrics = telemetry.metrics
        for name in ("messaging.client.sent.messages", "messaging.process.duration", "rq.job.executions", "rq.job.queue_wait"):
            found = {p.attributes["rq.job.function"]: p.attributes.get("rq.job.category") for p in metrics[name].points}
            assert found == expected, name


@pytest.mark.parametrize("item", ["no equals sign", "=category", "pattern="])
def test_a_category_that_says_nothing_is_refused_as_an_argument_and_left_out_of_the_environment(item, monkeypatch, caplog):
    with pytest.raises(ValueError, match="pattern=category"), capture(rq_job_categories=[item]):
        pass
    monkeypatch.setenv("CHEGOU_OTEL_RQ_JOB_CATEGORIES", f"{item}, a.*=A")
    with capture() as telemetry:
        assert telemetry.telemetry.runtime.settings.rq_job_categories == ("a.*=A",)
    assert any("CHEGOU_OTEL_RQ_JOB_CATEGORIES" in record.getMessage() for record in caplog.records)


def test_a_label_has_so_many_values_and_then_one_more():
    registry = Registry(lambda *_: True)
    registry.limits["function"] = 3
    counter = registry.counter("jobs")
    for number in range(10):
        counter.series((("queue", "default"), ("function", f"f{number}"))).add(1)
        counter.series((("queue", "default"), ("function", "f1"))).add(1)
    again = registry.counter("other").series((("function", "f9"),))  # the same few, in every instrument

    assert {series.labels[1][1] for series in counter.series_by_labels.values()} == {"f0", "f1", "f2", "_OTHER"}
    assert again.labels == (("function", "_OTHER"),)
    registry.collect()
    totals = {series.labels[1][1]: series.total for series in counter.series_by_labels.values()}
    assert totals == {"f0": 1, "f1": 11, "f2": 1, "_OTHER": 7}


def test_functions_past_the_bound_share_a_series_in_the_worker(telemetry, redis_client, monkeypatch):
    telemetry.telemetry.runtime.metrics.limits["rq.job.function"] = 1
    work(redis_client, ("report_sales",), ("counted",))

    assert {each["rq.job.function"] for each in labels_of(telemetry, "rq.job.executions")} == {"measured_jobs.report_sales", "_OTHER"}


def documented(page):
    """The metrics of a page: name → labels."""
    text = re.split(r"^## ", re.split(r"^## M[eé]tric[a-z]+$", (DOCS / page).read_text(), flags=re.MULTILINE)[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `((?:rq|messaging)\.[a-z_.]+)` \|([^|]*)\|([^|]*)\|$", text, re.MULTILINE)
    return {name: set(re.findall(r"`([a-z_.]+)`", labels)) for name, _, labels in rows}


@pytest.mark.parametrize("page", ["rq.md", "pt-br/rq.md"])
def test_the_page_names_what_is_emitted(page, redis_client):
    """Every instrument that RQ's integration makes is in the table, and every one in the table is made; labels likewise."""
    with capture(rq_job_categories=CATEGORIES) as telemetry:
        measures = telemetry.telemetry.runtime.metrics
        work(redis_client, ("report_sales",), ("refuse", "x"))
        work(redis_client, ("refuse", "x"), retry=rq.Retry(max=1))
        rq.Queue(connection=redis_client).enqueue("measured_jobs.counted").cancel()
        made = {name for name in measures.instruments if name.startswith(("rq.", "messaging."))}
        metrics = telemetry.metrics
        told = documented(page)
        assert set(told) == made | set(GAUGES)
        for name in made & set(metrics):
            seen = set().union(*(point.attributes for point in metrics[name].points))
            assert seen <= told[name], name
            assert told[name] - seen <= {"error.type"}, name
    labels = {value.gauge: {key for key, _ in value.labels} for value in read_everything(redis_client)}
    assert labels == {name: told[name] for name in GAUGES}


def read_everything(client):
    """A reading with every gauge in it."""
    from rq.cron import CronScheduler

    from chegou_otel.integrations.rq import connection
    from chegou_otel.integrations.rq.reading import Reader

    rq.Queue(connection=client).enqueue("measured_jobs.report_sales")
    scheduler = CronScheduler(connection=client)
    scheduler.register(documented, "default", args=("x",), interval=60)
    scheduler.register_birth()
    scheduler.enqueue_jobs()
    return Reader(connection.like(client)).read()


def test_measures_of_a_killed_job_are_the_parents_to_tell(hub):
    hub.queue().enqueue("hub_jobs.kill")
    hub.burst("Worker")
    hub.wait_jobs(1)
    wait_for(lambda: points(hub, "rq.job.executions"), 10)
    ((_, labels),) = points(hub, "rq.job.executions")
    assert dict(labels)["rq.job.status"] == "killed"
    ((_, labels),) = points(hub, "messaging.process.duration")
    assert dict(labels)["error.type"] == "killed"
