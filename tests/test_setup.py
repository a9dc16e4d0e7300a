"""``setup()`` as a newcomer meets it: in fresh processes, from every place it may be called."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import chegou_otel
from chegou_otel import _setup
from chegou_otel.testing import capture
from tests.delivery.receiver import Receiver, wait_for
from tests.redis_server import free_port

ROOT = Path(__file__).parents[1]


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def run(source, *argv, cwd=None, receiver=None, check=True, **env):
    """Run ``source`` in a fresh Python; returns the finished process."""
    base = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))}
    if receiver is not None:
        base["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
    base.setdefault("CHEGOU_OTEL_SPOOL_DIR", str((cwd or Path("/tmp")) / "spool"))
    command = [sys.executable, *([str(source)] if isinstance(source, Path) else ["-c", textwrap.dedent(source)]), *argv]
    return subprocess.run(
        command, cwd=cwd, env={**base, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, timeout=60, check=check
    )


def names(receiver, wanted):
    return wait_for(lambda: wanted <= set(receiver.names()) and receiver.names(), 10, f"{wanted} in {receiver.names()}")


def test_importing_does_nothing(tmp_path):
    done = run(
        """
        import sys, threading, logging
        handlers = logging.getLogger().handlers[:]
        before = set(sys.modules)
        import chegou_otel
        assert threading.active_count() == 1
        assert logging.getLogger().handlers == handlers
        print([name for name in set(sys.modules) - before if name.startswith(("opentelemetry", "django", "rq", "redis"))])
        """,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "[]"


def test_a_plain_script_tells_spans_logs_and_metrics_at_its_end(tmp_path, receiver):
    run(
        """
        import logging, chegou_otel
        from opentelemetry import trace, metrics
        t = chegou_otel.setup("script")
        with chegou_otel.use_correlation_id("story-0001"), trace.get_tracer("x").start_as_current_span("work"):
            logging.getLogger("x").warning("hello")
            metrics.get_meter("x").create_counter("count").add(1)
        """,
        cwd=tmp_path,
        receiver=receiver,
    )
    assert receiver.names() == ["work"]
    assert [log.body.string_value for log, _, _ in receiver.logs] == ["hello"]
    assert "count" in [metric.name for metric, _, _ in receiver.metrics]
    resource = {item.key: item.value.string_value for item in receiver.spans[0][2].attributes}
    assert (resource["service.name"], resource["chegou.role"]) == ("script", "command")


def test_twice_is_once():
    first = chegou_otel.setup("once", active="never")
    try:
        assert chegou_otel.setup("twice") is first
    finally:
        first.shutdown()
    second = chegou_otel.setup("again", active="never")
    assert second is not first
    second.shutdown()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"endpont": "x"}, TypeError, "did you mean 'endpoint'"),
        ({"integrations": ["rediss"]}, ValueError, "there is no integration 'rediss'"),
        ({"redact_patterns": ["("]}, ValueError, "("),
        ({"propagate_to": ["https://api.example.com/x"]}, ValueError, "https://api.example.com/x"),
        ({"trust_from": ["10.0.0.0/99"]}, ValueError, "10.0.0.0/99"),
        ({"endpoint": "localhost:4317"}, ValueError, "http"),
    ],
)
def test_a_wrong_argument_raises_at_once_and_leaves_nothing(options, error, said):
    call_handlers = logging.Logger.callHandlers
    with pytest.raises(error) as raised:
        chegou_otel.setup(active="always", **options)

    assert said in str(raised.value)
    assert _setup._current is None
    assert logging.Logger.callHandlers is call_handlers


def test_shutdown_undoes_every_patch_and_setup_works_again(telemetry):
    import sqlite3
    import threading

    from chegou_otel.testing import capture

    patched = threading.Thread.start, sqlite3.connect, logging.Logger.callHandlers
    telemetry.telemetry.shutdown()
    bare = threading.Thread.start, sqlite3.connect, logging.Logger.callHandlers
    assert all(one is not other for one, other in zip(patched, bare, strict=True))
    with capture() as again:
        sqlite3.connect(":memory:").execute("select 1")
        assert again.span_names() == ["SELECT"]
    assert (threading.Thread.start, sqlite3.connect, logging.Logger.callHandlers) == bare


def test_a_patch_that_somebody_wrapped_after_us_stays_disarmed():
    with capture() as recorded:
        ours = logging.Logger.callHandlers

        def theirs(self, record):
            seen.append(record.getMessage())
            return ours(self, record)

        seen = []
        logging.Logger.callHandlers = theirs
    try:
        before = len(recorded.logs)
        logging.getLogger("tests.wrapped").error("still theirs")
        assert (logging.Logger.callHandlers, seen, len(recorded.logs)) == (theirs, ["still theirs"], before)
    finally:
        logging.Logger.callHandlers = ours.__wrapped__


def test_the_collector_need_not_be_there_and_one_line_names_the_way_out(tmp_path):
    done = run(
        """
        import time, chegou_otel
        from opentelemetry import trace
        started = time.monotonic()
        t = chegou_otel.setup("alone")
        for n in range(50):
            trace.get_tracer("x").start_span("s").end()
            time.sleep(0.05)
        assert time.monotonic() - started < 10
        """,
        cwd=tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
    )
    said = [line for line in done.stderr.splitlines() if "chegou-otel dev" in line]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("when", ["before exit", "at exit"])
def test_what_could_not_be_sent_is_sent_by_the_next_process(tmp_path, receiver, when):
    """Also by one that has no time for a thread: since Python 3.12 none starts once the exit has begun."""
    source = """
        import atexit, chegou_otel
        from opentelemetry import trace
        t = chegou_otel.setup("later")
        END
    """
    end = 'trace.get_tracer("x").start_span("SPAN").end()'
    if when == "at exit":
        end = f"atexit.register(lambda: {end})"
    source = source.replace("END", end)
    run(source.replace("SPAN", "first"), cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    run(source.replace("SPAN", "second"), cwd=tmp_path, receiver=receiver)

    assert sorted(names(receiver, {"first", "second"})) == ["first", "second"]


def test_with_the_sdk_disabled_correlation_ids_still_work(tmp_path, receiver):
    done = run(
        """
        import logging, chegou_otel
        from opentelemetry import trace
        logging.basicConfig(format="%(correlation_id)s %(message)s")
        t = chegou_otel.setup("off")
        with chegou_otel.use_correlation_id("story-0009"):
            trace.get_tracer("x").start_span("no").end()
            logging.getLogger("x").warning("hello")
        print(t.idle)
        """,
        cwd=tmp_path,
        receiver=receiver,
        OTEL_SDK_DISABLED="true",
    )
    assert "story-0009 hello" in done.stderr
    assert "OTEL_SDK_DISABLED" in done.stdout
    assert receiver.requests == []


def test_under_a_test_runner_nothing_is_sent(receiver):
    """This process is one."""
    telemetry = chegou_otel.setup("tests", endpoint=receiver.url)
    try:
        from opentelemetry import trace

        trace.get_tracer("x").start_span("no").end()
        assert "test runner" in telemetry.idle
        assert telemetry.flush(1)
    finally:
        telemetry.shutdown()
    assert receiver.requests == []


def test_a_wrong_environment_value_warns_and_falls_back(tmp_path):
    done = run(
        "import chegou_otel; print(chegou_otel.setup('x', active='never').runtime.settings.traces)",
        cwd=tmp_path,
        CHEGOU_OTEL_TRACES="perhaps",
        OTEL_BSP_MAX_QUEUE_SIZE="9",
    )
    assert done.stdout.strip() == "True"
    assert "CHEGOU_OTEL_TRACES='perhaps' is ignored" in done.stderr
    assert "OTEL_BSP_MAX_QUEUE_SIZE='9' is not honoured" in done.stderr


# -- Django projects --------------------------------------------------------------------------------------------------------


PROJECT = {
    "manage.py": """
        import os, sys
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
    """,
    "shop/__init__.py": "",
    "shop/settings.py": """
        SECRET_KEY = "x"; DEBUG = True; ALLOWED_HOSTS = ["*"]; ROOT_URLCONF = "shop.urls"; USE_TZ = True
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        INSTALLED_APPS = [@APPS@ "shop"]
        MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
        @SETUP@
    """,
    "shop/urls.py": """
        from django.http import HttpResponse
        from django.urls import path
        urlpatterns = [path("hello/<int:n>/", lambda request, n: HttpResponse("hi"))]
    """,
    "shop/wsgi.py": """
        import os
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
        @WSGI@
        from django.core.wsgi import get_wsgi_application
        application = get_wsgi_application()
    """,
    "shop/management/__init__.py": "",
    "shop/management/commands/__init__.py": "",
    "shop/management/commands/tidy.py": """
        import logging
        from django.core.management.base import BaseCommand
        class Command(BaseCommand):
            def handle(self, *args, **options):
                logging.getLogger("shop").warning("tidying")
    """,
    "request.py": """
        from wsgiref.util import setup_testing_defaults
        import sys
        if "run" in sys.argv:
            import chegou_otel; chegou_otel.setup()
        from shop.wsgi import application
        environ = {"PATH_INFO": "/hello/7/"}
        setup_testing_defaults(environ)
        headers = []
        response = application(environ, lambda status, found: headers.extend(found))
        b"".join(response); response.close()
        print(dict(headers).get("X-Correlation-ID"))
    """,
}


@pytest.fixture
def project(tmp_path):
    def build(apps="", setup="", wsgi=""):
        for name, text in PROJECT.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).replace("@APPS@", apps).replace("@SETUP@", setup).replace("@WSGI@", wsgi))
        return tmp_path

    return build


CALL = "import chegou_otel; chegou_otel.setup()"


@pytest.mark.parametrize(
    ("places", "argv"),
    [
        ({"setup": CALL}, ()),
        ({"wsgi": CALL}, ()),
        ({"apps": '"chegou_otel",'}, ()),
        ({}, ("run",)),
        ({"setup": CALL, "wsgi": CALL, "apps": '"chegou_otel",'}, ("run",)),
    ],
    ids=["settings.py", "wsgi.py", "INSTALLED_APPS", "before anything", "everywhere at once"],
)
def test_a_request_is_told_once_from_wherever_setup_is_called(project, receiver, places, argv):
    folder = project(**places)
    done = run(
        folder / "request.py", *argv, cwd=folder, receiver=receiver, PYTHONPATH=f"{ROOT}:{folder}", DJANGO_SETTINGS_MODULE="shop.settings"
    )

    assert receiver.names() == ["GET /hello/<int:n>/"], done.stderr
    told = {item.key: item.value.string_value for item in receiver.spans[0][0].attributes}
    assert told["correlation_id"] == done.stdout.strip()
    resource = {item.key: item.value.string_value for item in receiver.spans[0][2].attributes}
    assert resource["service.name"] == "shop"


def test_installed_apps_takes_settings_and_a_misspelt_key_is_a_clear_error(project, receiver):
    folder = project(apps='"chegou_otel",', setup="CHEGOU_OTEL = {'servce_name': 'x'}")
    done = run(folder / "manage.py", "check", cwd=folder, receiver=receiver, check=False, PYTHONPATH=f"{ROOT}:{folder}")

    assert done.returncode != 0
    assert "CHEGOU_OTEL: setup() has no setting 'servce_name'; did you mean 'service_name'?" in done.stderr


def test_a_management_command_is_a_root_span_with_its_logs(project, receiver):
    folder = project(setup=CALL)
    run(folder / "manage.py", "tidy", cwd=folder, receiver=receiver, PYTHONPATH=f"{ROOT}:{folder}")

    assert receiver.names() == ["manage.py tidy"]
    span, log = receiver.spans[0][0], receiver.logs[0][0]
    ids = [{item.key: item.value.string_value for item in each.attributes}["correlation_id"] for each in (span, log)]
    assert span.trace_id == log.trace_id
    assert ids[0] == ids[1]


@pytest.mark.parametrize("command", [("migrate",), ("check",), ("shell", "-c", "print(1)")])
def test_quiet_commands_send_nothing_unless_asked(project, receiver, command):
    folder = project(setup=CALL)
    run(folder / "manage.py", *command, cwd=folder, receiver=receiver, PYTHONPATH=f"{ROOT}:{folder}")
    assert receiver.requests == []

    run(folder / "manage.py", *command, cwd=folder, receiver=receiver, PYTHONPATH=f"{ROOT}:{folder}", CHEGOU_OTEL_ACTIVE="always")
    assert f"manage.py {command[0]}" in receiver.names()


def test_runserver_s_reloader_stays_idle(project, receiver):
    from chegou_otel.signals.resource import idle_reason

    assert "reloader" in idle_reason(["manage.py", "runserver"], {})
    assert idle_reason(["manage.py", "runserver", "--noreload"], {}) is None or "test runner" in idle_reason(
        ["manage.py", "runserver", "--noreload"], {}
    )


@pytest.mark.parametrize(
    ("argv", "role"),
    [
        (["manage.py", "runserver"], "web"), (["manage.py", "rqworker", "default"], "worker"), (["manage.py", "rqscheduler"], "scheduler"),
        (["manage.py", "rqcron", "cron.py"], "scheduler"),
        (["manage.py", "tidy"], "command"), (["/usr/bin/gunicorn", "shop.wsgi"], "web"), (["/x/uvicorn/__main__.py", "a:b"], "web"),
        (["/usr/bin/rq", "worker", "default"], "worker"), (["rq", "worker-pool"], "worker"), (["rq", "cron", "x.py"], "scheduler"),
        (["script.py"], "command"), ([""], "command"),
    ],
)  # fmt: skip
def test_roles_are_told_from_the_command_line(argv, role):
    from chegou_otel.signals.resource import role_of

    assert role_of(argv) == role


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/usr/bin/rq", "worker", "-c", "shop.settings", "default"], "shop"), (["rq", "worker", "--config=shop.settings"], "shop"),
        (["rq", "worker", "-c"], "rq"), (["rq", "worker"], "rq"), (["python3", "-c", "print()"], "python3"), (["/x/report.py"], "report"),
        (["-c"], "unknown_service"),
    ],
)  # fmt: skip
def test_without_django_s_variable_the_name_is_told_from_the_command_line(monkeypatch, argv, name):
    from chegou_otel.signals.resource import default_service_name

    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    assert default_service_name(argv) == name


def test_the_version_is_the_commit_that_is_checked_out(tmp_path):
    from chegou_otel.signals.resource import git_version

    subprocess.run(
        "git init -q . && git -c user.name=t -c user.email=t@t commit -q --allow-empty -m x", shell=True, cwd=tmp_path, check=True
    )
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    assert git_version(tmp_path / "deep") is None or git_version(tmp_path) == head[:12]
    assert git_version(tmp_path) == head[:12]
    subprocess.run(["git", "pack-refs", "--all"], cwd=tmp_path, check=True)
    assert git_version(tmp_path) == head[:12]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CHEGOU_OTEL_INTEGRATIONS", "djngo"),
        ("CHEGOU_OTEL_DISABLED_INTEGRATIONS", "rq,djngo"),
        ("CHEGOU_OTEL_REDACT_PATTERNS", "([,PED-[0-9]+"),
    ],
)
def test_what_a_variable_names_wrongly_warns_and_is_left_out(tmp_path, variable, text):
    """A deployment does not fail on a typo in telemetry; what is right beside it counts."""
    done = run(
        """
        import chegou_otel
        settings = chegou_otel.setup("typo", active="never").runtime.settings
        print(settings.integrations, settings.disabled_integrations, settings.redact_patterns)
        """,
        cwd=tmp_path,
        **{variable: text},
    )
    wrong = "djngo" if "INTEGRATIONS" in variable else "(["
    assert f"{variable}: '{wrong}' is ignored" in done.stderr
    expected = {
        "CHEGOU_OTEL_INTEGRATIONS": "None () ()",
        "CHEGOU_OTEL_DISABLED_INTEGRATIONS": "None ('rq',) ()",
        "CHEGOU_OTEL_REDACT_PATTERNS": "None () ('PED-[0-9]+',)",
    }
    assert done.stdout.strip() == expected[variable]


@pytest.mark.parametrize("argument", ["integrations=['djngo']", "disabled_integrations=['djngo']", "redact_patterns=['([']"])
def test_what_an_argument_names_wrongly_raises(tmp_path, argument):
    done = run(f"import chegou_otel; chegou_otel.setup('typo', active='never', {argument})", cwd=tmp_path, check=False)

    assert done.returncode == 1
    assert "ValueError: " in done.stderr


# -- beside others --------------------------------------------------------------------------------------------------------------


def test_a_tracer_provider_that_was_set_before_is_used_and_reported(tmp_path, receiver):
    done = run(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        theirs, memory = TracerProvider(), InMemorySpanExporter()
        theirs.add_span_processor(SimpleSpanProcessor(memory))
        trace.set_tracer_provider(theirs)
        import chegou_otel, sqlite3
        t = chegou_otel.setup("beside")
        assert trace.get_tracer_provider() is theirs
        with chegou_otel.use_correlation_id("story-0011"), trace.get_tracer("x").start_as_current_span("mine"):
            sqlite3.connect(":memory:").execute("select 1")
        for span in memory.get_finished_spans():
            print(span.name, span.attributes.get("correlation_id"), span.parent is not None)
        print(t.skipped["traces"])
        """,
        cwd=tmp_path,
        receiver=receiver,
    )
    assert "SELECT story-0011 True" in done.stdout
    assert "it is used as it is" in done.stdout
    assert receiver.names() == []


def test_beside_sentry_both_see_the_request(tmp_path, receiver):
    pytest.importorskip("sentry_sdk")
    done = run(
        """
        import sentry_sdk, chegou_otel, logging, sys
        events = []
        sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=lambda event: None, before_send=lambda event, hint: events.append(event), traces_sample_rate=1.0)
        t = chegou_otel.setup("beside")
        from opentelemetry import trace
        with chegou_otel.use_correlation_id("story-0012"), trace.get_tracer("x").start_as_current_span("work"):
            try:
                raise ValueError("both")
            except ValueError:
                logging.getLogger("x").exception("failed")
        print(len(events))
        """,
        cwd=tmp_path,
        receiver=receiver,
    )
    assert done.stdout.strip() == "1"
    assert receiver.names() == ["work"]
    assert [log.body.string_value for log, _, _ in receiver.logs] == ["failed"]


COUNTED = """
import os, sys, time
import chegou_otel
chegou_otel.setup("counting", active="always")
from opentelemetry import metrics
counted = metrics.get_meter("mine").create_counter("before")
counted.add(1)
if "fork" in sys.argv:
    pid = os.fork()
    if pid == 0:
        metrics.get_meter("mine").create_counter("after").add(1)
        time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("argv", [(), ("fork",)])
def test_a_process_with_metrics_only_sends_them_while_it_lives(tmp_path, receiver, argv):
    variables = {
        "CHEGOU_OTEL_TRACES": "false", "OTEL_LOGS_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTED, *argv],
        cwd=tmp_path,
        env={**os.environ, **variables},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        wanted = {"before", "after"} if argv else {"before"}
        assert wait_for(lambda: wanted <= {metric.name for metric, _, _ in receiver.metrics}, 20, "metrics")
        assert receiver.names() == []
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "many"},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.5"},
        {"OTEL_TRACES_SAMPLER": "sometimes"},
        {"OTEL_METRIC_EXPORT_INTERVAL": "often"},
        {"OTEL_SPAN_LINK_COUNT_LIMIT": "few"},
        {"CHEGOU_OTEL_SPOOL_DIR": "/dev/null/spool"},
        {"CHEGOU_OTEL_REDACT_KEYS": "..."},
        {"CHEGOU_OTEL_REDCAT": "false"},
    ],
)
def test_whatever_is_wrong_in_the_environment_is_said_and_falls_back(tmp_path, receiver, variables):
    source = """
        import logging
        logging.basicConfig()
        import chegou_otel
        chegou_otel.setup("x", active="always")
        from opentelemetry import trace
        trace.get_tracer("mine").start_span("work").end()
    """
    done = run(source, cwd=tmp_path, receiver=receiver, **variables)

    assert "WARNING" in done.stderr
    assert next(reversed(variables)).rpartition("_")[2].lower() in done.stderr.lower()
    assert receiver.names() == ["work"]


def test_a_spool_in_memory_touches_no_disk(receiver, tmp_path):
    source = """
        import chegou_otel
        from opentelemetry import trace
        telemetry = chegou_otel.setup("shop", active="always", spool="memory")
        with trace.get_tracer("t").start_as_current_span("work"):
            pass
        print(telemetry.runtime.recorder.storage.kind, telemetry.flush(10))
    """
    done = run(source, cwd=tmp_path, receiver=receiver)
    assert done.stdout.split() == ["memory", "True"]
    assert receiver.names() == ["work"]
    assert not list(tmp_path.rglob("*.seg"))
    assert not (tmp_path / "spool").exists()
