"""Enqueueing from Django: django-rq's commit modes, and `django.tasks` with an RQ backend."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

import pytest
from rq.registry import ScheduledJobRegistry

from tests.delivery.receiver import wait_for
from tests.integrations.rq.conftest import attributes
from tests.integrations.rq.ways import unseen

MODES = ["auto", "on_db_commit", "request_finished"] if int(version("django-rq").split(".")[0]) >= 4 else ["auto"]
needs_tasks = pytest.mark.skipif(find_spec("django_tasks_rq") is None, reason="django-tasks-rq is not installed")


def told(hub, *names):
    """The spans of those names, once one of each has come."""
    wait_for(lambda: all(hub.receiver.counts().get(name) for name in names), 20, lambda: f"{hub.receiver.counts()}\n{hub.said()}")
    spans = [span for span, _, _ in hub.receiver.spans]
    return [next(span for span in spans if span.name == name) for name in names]


@pytest.mark.parametrize("mode", MODES)
def test_a_job_belongs_to_the_request_that_asked_for_it_however_late_it_is_committed(hub, mode):
    hub.work("web.py", "/enqueue/", HUB_COMMIT_MODE=mode, CHEGOU_OTEL_ACTIVE="always")
    hub.burst()
    hub.wait_jobs(1)
    request, sent, run = told(hub, "GET /enqueue/", "send default", "process default")

    assert hub.receiver.counts()["send default"] == 1
    assert not {"PIPELINE HSET RPUSH SADD", "SADD", "HSET"} & set(hub.receiver.names())
    assert (sent.trace_id, sent.parent_span_id) == (request.trace_id, request.span_id)
    assert (run.trace_id, run.parent_span_id) == (sent.trace_id, sent.span_id)
    assert len({attributes(span)["correlation_id"] for span in (request, sent, run)}) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_job_belongs_to_the_block_that_asked_for_it(hub, mode):
    hub.work("web.py", "/inner/", HUB_COMMIT_MODE=mode, CHEGOU_OTEL_ACTIVE="always")
    request, sent = told(hub, "GET /inner/", "send default")

    assert (sent.trace_id, sent.parent_span_id) == (request.trace_id, request.span_id)
    assert attributes(sent)["correlation_id"] == "import-0001"


@needs_tasks
def test_a_task_of_django_is_a_job_like_any_other(hub):
    tasks = {"HUB_TASKS": "1", "DJANGO_SETTINGS_MODULE": "web_settings", "CHEGOU_OTEL_ACTIVE": "always"}
    hub.work("web.py", "/task/", **tasks)
    hub.work("manage.py", "rqworker", "--burst", "--job-class", "django_tasks_rq.Job", **tasks)
    hub.wait_jobs(1)
    request, sent, run = told(hub, "GET /task/", "send default", "process default")

    assert hub.receiver.counts()["send default"] == 1
    assert (sent.trace_id, sent.parent_span_id, run.parent_span_id) == (request.trace_id, request.span_id, sent.span_id)
    assert {attributes(span)["rq.job.function"] for span in (sent, run)} == {"web_tasks.greet"}
    assert attributes(run)["rq.job.status"] == "finished", hub.said()


@needs_tasks
def test_a_task_for_later_is_a_trace_of_its_own(hub):
    tasks = {"HUB_TASKS": "1", "DJANGO_SETTINGS_MODULE": "web_settings", "CHEGOU_OTEL_ACTIVE": "always"}
    hub.work("web.py", "/later/", **tasks)
    with unseen():
        registry = ScheduledJobRegistry(queue=hub.queue())
        (job_id,) = registry.get_job_ids()
        hub.redis.zadd(registry.key, {job_id: 1})
    hub.work("manage.py", "rqworker", "--burst", "--with-scheduler", "--job-class", "django_tasks_rq.Job", **tasks)
    hub.wait_jobs(1)
    request, sent, run = told(hub, "GET /later/", "send default", "process default")

    assert (sent.trace_id, run.parent_span_id, run.trace_id != sent.trace_id) == (request.trace_id, b"", True)
    assert [(link.trace_id, link.span_id) for link in run.links] == [(sent.trace_id, sent.span_id)]
    assert attributes(run)["correlation_id"] == attributes(request)["correlation_id"]
