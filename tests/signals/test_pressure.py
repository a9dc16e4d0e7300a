"""What goes first when there is no room: real requests, jobs and log lines, a collector that is down, and a small spool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.delivery.receiver import Receiver, wait_for
from tests.redis_server import free_port

ROOT = Path(__file__).parents[2]

#: Each round is a healthy request, a failing one, a job and three log lines, numbered. It ends when even failures find no room.
ROUNDS = """
    import json, logging, os, sys, types
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path
    import chegou_otel
    from opentelemetry import trace

    def fine(request, number):
        with trace.get_tracer("x").start_as_current_span("inner fine", attributes={"number": number}):
            return HttpResponse("ok")

    def broken(request, number):
        with trace.get_tracer("x").start_as_current_span("inner broken", attributes={"number": number}):
            pass
        raise RuntimeError("broken")

    urls = types.ModuleType("urls")
    urls.urlpatterns = [path("fine/<int:number>/", fine), path("broken/<int:number>/", broken)]
    sys.modules["urls"] = urls
    settings.configure(ROOT_URLCONF="urls", SECRET_KEY="x", ALLOWED_HOSTS=["*"], MIDDLEWARE=[], LOGGING_CONFIG=None)
    telemetry = chegou_otel.setup("shop", spool_max_bytes=8 << 20, exit_timeout=0.2)
    django.setup()
    from django.core.wsgi import get_wsgi_application
    application = get_wsgi_application()
    logging.getLogger("django.request").propagate = False
    log = logging.getLogger("shop")
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.NullHandler())
    log.propagate = False

    def request(where):
        import io
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": where, "SERVER_NAME": "shop", "SERVER_PORT": "80", "SCRIPT_NAME": "",
                   "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr, "HTTP_USER_AGENT": "x" * 400}
        answer = application(environ, lambda *_: None)
        list(answer)
        answer.close()

    def full():
        return any("full" in account.dropped for account in telemetry.runtime.recorder.ledger().values())

    jobs = trace.get_tracer("jobs")
    number = 0
    while number < 20_000 and not (number % 50 == 0 and full()):
        log.debug("debug %d %s", number, "x" * 200)
        log.info("info %d %s", number, "x" * 200)
        log.error("error %d %s", number, "x" * 200)
        request(f"/fine/{number}/")
        request(f"/broken/{number}/")
        jobs.start_span("job", kind=trace.SpanKind.CONSUMER, attributes={"number": number}).end()
        number += 1
    ledger = telemetry.runtime.recorder.ledger()
    print(json.dumps({"rounds": number, **{name: [each.created, each.held, each.dropped] for name, each in ledger.items()}}))
"""


def python(source, tmp_path, endpoint):
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))}
    kept.update(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, CHEGOU_OTEL_SPOOL_DIR=str(tmp_path), PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], env=kept, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """What the process counted, and by class the numbers of what its heir delivered."""
    folder = tmp_path_factory.mktemp("spool")
    counted = json.loads(python(ROUNDS, folder, f"http://127.0.0.1:{free_port()}").splitlines()[-1])
    receiver = Receiver()
    try:
        python("import chegou_otel; t = chegou_otel.setup('shop', integrations=[]); t.runtime.recorder.start(); assert t.flush(60)",
               folder, receiver.url)  # fmt: skip
        wait_for(lambda: len(receiver.spans) >= counted["traces"][1] and len(receiver.logs) >= counted["logs"][1], 30)
    finally:
        receiver.close()
    return counted, by_class(receiver), receiver


def by_class(receiver):
    """The rounds of which something arrived, by what it is."""
    rounds = defaultdict(set)
    for log, scope, _ in receiver.logs:
        if scope == "shop":
            word, number, _ = log.body.string_value.split(" ")
            rounds[word].add(int(number))
    for span, _, _ in receiver.spans:
        attributes = {item.key: item.value for item in span.attributes}
        told = str(attributes["number"].int_value) if "number" in attributes else attributes["url.path"].string_value
        rounds[span.name].add(int("".join(filter(str.isdigit, told))))
    return dict(rounds)


FINE, BROKEN = "GET /fine/<int:number>/", "GET /broken/<int:number>/"


def end(rounds):
    """The first round that is missing."""
    return next(number for number in range(len(rounds) + 1) if number not in rounds)


def test_what_goes_first(story):
    """Debug logs, then info logs, then spans of healthy requests; failures and jobs stay to the last."""
    counted, arrived, _ = story
    ends = {name: end(arrived[name]) for name in ("debug", "info", FINE, BROKEN, "job", "error")}
    assert 0 < ends["debug"] < ends["info"] < ends[FINE]
    for last in (BROKEN, "job", "error"):
        assert ends[FINE] < ends[last]
        assert ends[last] >= counted["rounds"] - 50


def test_nothing_of_a_class_is_taken_after_it_went(story):
    _, arrived, _ = story
    for name in ("debug", "info", FINE):
        assert len(arrived[name]) == end(arrived[name]), name


def test_what_a_failing_request_did_before_it_failed_goes_like_any_span(story):
    """At its end nobody knows that the request will fail."""
    _, arrived, _ = story
    assert end(arrived["inner broken"]) <= end(arrived[FINE]) + 1


def test_a_failing_request_is_marked_failed(story):
    _, _, receiver = story
    assert {span.status.code for span, _, _ in receiver.spans if span.name == BROKEN} == {Status.STATUS_CODE_ERROR}


def test_every_drop_is_counted_by_its_reason(story):
    counted, _, receiver = story
    for signal, came in (("traces", receiver.spans), ("logs", receiver.logs)):
        created, held, dropped = counted[signal]
        assert set(dropped) == {"pressure", "full"}
        assert created == held + sum(dropped.values())
        assert len(came) >= held


def test_a_work_horse_keeps_to_its_parent_s_pressure(tmp_path):
    """The child's own segment is empty; what counts is the room of the process that ships for it."""
    told = python(
        """
        import json, logging, os
        import chegou_otel
        telemetry = chegou_otel.setup("shop", spool_max_bytes=32 << 20, exit_timeout=0.1, integrations=[])
        recorder = telemetry.runtime.recorder
        log = logging.getLogger("shop")
        log.setLevel(logging.DEBUG)
        log.propagate = False
        log.addHandler(logging.NullHandler())
        while recorder.pool.floor() < 2:
            log.info("x" * 1000)
            log.error("x" * 1000)
        segment = recorder.reserve()
        before = recorder.ledger()["logs"]
        child = os.fork()
        if not child:
            recorder.become(segment)
            log.debug("debug")
            log.info("info")
            log.error("error")
            os._exit(0)
        os.waitpid(child, 0)
        recorder.drain(segment)
        after = recorder.ledger()["logs"]
        print(json.dumps([after.created - before.created, after.held - before.held, after.dropped["pressure"] - before.dropped["pressure"]]))
        """,
        tmp_path,
        f"http://127.0.0.1:{free_port()}",
    )
    assert json.loads(told) == [3, 1, 2]
