"""``/health/`` in a real process, with a receiver that works, one that does not, and none at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.delivery.receiver import HANG, Answer, Receiver
from tests.redis_server import free_port

ROOT = Path(__file__).parents[2]

PROJECT = """
    import json, os, sys, time, types
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import include, path
    import chegou_otel
    urls = types.ModuleType("urls")
    urls.urlpatterns = [path("health/", include("chegou_otel.urls")), path("page/", lambda request: HttpResponse("ok"))]
    sys.modules["urls"] = urls
    settings.configure(ROOT_URLCONF="urls", SECRET_KEY="x", ALLOWED_HOSTS=["*"], MIDDLEWARE=[], LOGGING_CONFIG=None)
    django.setup()
    from django.test import Client
    client = Client()

    def show(url="/health/"):
        began = time.monotonic()
        answer = client.get(url)
        print(json.dumps([answer.status_code, time.monotonic() - began, answer.json(), dict(answer.headers)]))
"""
SETUP = 'telemetry = chegou_otel.setup("shop", service_version="1.2.3", environment="test", exit_timeout=0.2)\n'


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def shop(tmp_path):
    def run(source, endpoint="", **env):
        kept = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))}
        kept.update(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, CHEGOU_OTEL_SPOOL_DIR=str(tmp_path), PYTHONPATH=str(ROOT), **env)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROJECT) + textwrap.dedent(source)],
            env=kept, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_a_process_that_delivers(shop, receiver):
    ((code, _, told, headers),) = shop(f"{SETUP}client.get('/page/')\nassert telemetry.flush(10)\nshow()", receiver.url)
    assert code == 200
    assert (told["status"], told["service"], told["version"], told["environment"]) == ("ok", "shop", "1.2.3", "test")
    telemetry = told["telemetry"]
    assert telemetry["off"] is None
    assert "django" in telemetry["installed"]
    assert telemetry["storage"]["kind"] == "disk"
    assert telemetry["endpoints"]["traces"]["endpoint"] == f"{receiver.url}/v1/traces"
    assert telemetry["endpoints"]["traces"]["delivered_at"] >= told["timestamp"][:11]
    assert telemetry["endpoints"]["traces"]["failed_at"] is None
    assert telemetry["ledger"]["traces"] == {
        "created": 1, "adopted": 0, "delivered": 1, "rejected": 0, "dropped": {}, "held": 0, "ambiguous": 0,
    }  # fmt: skip
    assert headers["Cache-Control"] == "no-store"


def test_it_is_not_traced_itself(shop, receiver):
    shop(f"{SETUP}show()\nshow('/health/?strict=1')\nclient.get('/page/')\nassert telemetry.flush(10)", receiver.url)
    assert receiver.names() == ["GET /page/"]
    durations = [metric for metric, _, _ in receiver.metrics if metric.name == "http.server.request.duration"]
    assert {point.count for metric in durations for point in metric.histogram.data_points} == {1}


def test_a_dead_collector_is_told_and_harms_nobody(shop):
    source = f"{SETUP}client.get('/page/')\ntelemetry.flush(2)\nshow()\nshow('/health/?strict=1')"
    (code, _, told, _), (strict, *_) = shop(source, f"http://127.0.0.1:{free_port()}")
    assert (code, strict) == (200, 503)
    assert told["status"] == "degraded"
    traces = told["telemetry"]["endpoints"]["traces"]
    assert traces["failing"]
    assert "refused" in traces["failure"]
    assert told["telemetry"]["ledger"]["traces"]["held"] == 1


def test_a_collector_that_hangs_is_not_waited_for(shop, receiver):
    receiver.default = HANG
    found = shop(f"{SETUP}client.get('/page/')\ntime.sleep(0.5)\nfor _ in range(5): show()", receiver.url)
    assert [code for code, *_ in found] == [200] * 5
    assert all(seconds < 0.5 for _, seconds, *_ in found[1:])


def test_nothing_secret_is_told(shop, receiver):
    receiver.default = Answer(status=400, body=b"\x12\x1epassword=hunter22 is not right", accept=False)
    found = shop(f"{SETUP}client.get('/page/')\ntelemetry.flush(2)\nshow()", receiver.url.replace("//", "//user:sesame@"),
                 OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20tooth")  # fmt: skip
    told = json.dumps(found)
    assert not [secret for secret in ("sesame", "tooth", "hunter22") if secret in told]
    assert "HTTP 400 Bad Request password=[redacted]" in told


def test_switched_off(shop):
    (code, _, told, _), (strict, *_) = shop(f"{SETUP}show()\nshow('/health/?strict=1')", OTEL_SDK_DISABLED="true")
    assert (code, strict) == (200, 503)
    assert told["status"] == "off"
    assert told["telemetry"]["off"] == "OTEL_SDK_DISABLED is set"


def test_switched_off_while_it_runs(shop, receiver):
    source = f"""{SETUP}
show()
place = __import__("pathlib").Path(telemetry.runtime.switch._places[0])
place.parent.mkdir(parents=True, exist_ok=True)
place.write_text('{{"since": 0, "by": "ana", "reason": "a drill"}}')
telemetry.runtime.switch._next = 0
telemetry.runtime.switch.look()
show()"""
    (_, _, before, _), (code, _, told, _) = shop(source, receiver.url)
    assert (before["status"], before["telemetry"]["off"]) == ("ok", None)
    assert (code, told["status"]) == (200, "off")
    assert "by ana: a drill" in told["telemetry"]["off"]


def test_without_setup(shop):
    ((code, _, told, _),) = shop("show()")
    assert (code, told["status"], told["telemetry"]) == (200, "off", None)


def test_a_failure_of_ours_is_an_answer_all_the_same(shop, receiver):
    source = f"{SETUP}from chegou_otel.app import health\nhealth.report = lambda: 1 / 0\nshow()"
    ((code, _, told, _),) = shop(source, receiver.url)
    assert (code, told["status"], told["telemetry"]) == (200, "degraded", None)


def test_a_busy_recorder_is_not_waited_for(shop, receiver):
    source = f"""{SETUP}
import _thread
lock = telemetry.runtime.recorder._lock
_thread.start_new_thread(lambda: (lock.acquire(), time.sleep(30)), ())
time.sleep(0.2)
show()
show()
sys.stdout.flush()
os._exit(0)
"""
    (code, *_), (_, seconds, told, _) = shop(source, receiver.url)
    assert code == 200
    assert seconds < 1
    assert told["telemetry"]["ledger"] is None
