"""`chegou-otel doctor` as a real process, before real receivers, in whatever state a project may be."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from email.utils import formatdate

import psutil
import pytest

from tests.delivery.receiver import HANG, PATIENCE, Answer, Receiver, raw_server
from tests.delivery.test_transport import keys, tls_receiver  # noqa: F401 - a fixture
from tests.local.programs import CLI, environment, find, running, until
from tests.redis_server import free_port
from tests.redis_server import running as running_redis

SETTINGS = """
    import chegou_otel
    SECRET_KEY = "x"
    ALLOWED_HOSTS = [".example.com"]
    ROOT_URLCONF = "shop.urls"
    INSTALLED_APPS = []
    MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    chegou_otel.setup("shop", service_version="1.2.3", environment="test")
"""


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def project(tmp_path):
    """A Django project with ``manage.py``; its settings call ``setup()``."""
    folder = tmp_path / "project"
    (folder / "shop").mkdir(parents=True)
    (folder / "manage.py").write_text('import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n')
    (folder / "shop/__init__.py").touch()
    (folder / "shop/urls.py").write_text("urlpatterns = []\n")
    (folder / "shop/settings.py").write_text(textwrap.dedent(SETTINGS))
    return folder


@pytest.fixture
def doctor(tmp_path):
    """Run it in an empty folder, or in a project."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*options, cwd=empty, endpoint=None, **env):
        told = {"CHEGOU_OTEL_SPOOL_DIR": str(tmp_path / "spool"), "CHEGOU_OTEL_QUERY_URL": f"http://127.0.0.1:{free_port()}", **env}
        if endpoint:
            told["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        told = {key: value for key, value in told.items() if value is not None}
        return subprocess.run(
            [*CLI, "doctor", *options], cwd=cwd, env=environment(told), capture_output=True, text=True, timeout=90, check=False
        )

    return run


def section(done, name):
    """The lines under a heading."""
    _, _, rest = done.stdout.partition(f"\n{name}\n")
    return rest.partition("\n\n")[0]


def problems(done):
    """What is wrong → what mends it."""
    return {each["what"]: each["fix"] for each in json.loads(done.stdout)["findings"] if each["problem"]}


def only_problem(done):
    assert done.returncode == 1
    (found,) = problems(done).items()
    return found


# --- all is well ----------------------------------------------------------------------------------------------------------------------


def test_a_project_before_the_local_backend(doctor, project, tmp_path):
    with running(tmp_path / "data") as dev:
        done = doctor(cwd=project, endpoint=dev.url, CHEGOU_OTEL_QUERY_URL=None)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        tried = section(done, "TRIED")
        assert "GET /chegou-otel-doctor/ → 404: ✓ arrived" in tried
        assert "forked work-horse (no queue was touched): ✓ arrived" in tried
        assert "log line        a warning: ✓ arrived" in tried
        wired = section(done, "WIRED")
        for words in ("shop.settings", "shop 1.2.3, test", f"http/protobuf → {dev.url}/v1/traces  ✓ delivered", "parent-based", "django "):
            assert words in wired
        assert "nothing" in section(done, "LOST")
        command = done.stdout.rpartition("look at it: chegou-otel ")[2].split()
        assert command[:1] == ["find"]
        story = find(*command[1:])
        assert story.returncode == 0
        for words in ("GET → 404", "process chegou-otel-doctor", "chegou-otel doctor: a log line"):
            assert words in story.stdout


def test_as_json(doctor, project, receiver):
    done = doctor("--json", cwd=project, endpoint=receiver.url)
    told = json.loads(done.stdout)
    assert (done.returncode, told["healthy"]) == (0, True)
    assert told["wired"]["resource"]["service.name"] == "shop"
    assert told["ledger"]["traces"]["created"] == 2
    assert told["correlation_id"].startswith("doctor-")
    assert "exit code: 0 healthy, 1" in doctor("--help").stdout


def test_a_collector_without_a_backend_is_believed_by_its_answer(doctor, project, receiver):
    done = doctor(cwd=project, endpoint=receiver.url)
    assert done.returncode == 0, done.stdout
    assert section(done, "TRIED").count("✓ the collector took it (OTLP success)") == 3
    assert sorted(receiver.names()) == ["GET", "process chegou-otel-doctor"]
    correlated = {item.value.string_value for span, _, _ in receiver.spans for item in span.attributes if item.key == "correlation_id"}
    assert len(correlated) == 1
    (correlation,) = correlated
    assert correlation in done.stdout


def test_jaeger_is_asked_and_has_no_logs(doctor, tmp_path):
    """Nothing but Jaeger's API is passed on, so nothing else answers."""
    with running(tmp_path / "data") as dev, only_jaeger(dev.url) as jaeger:
        done = doctor("--json", endpoint=dev.url, CHEGOU_OTEL_QUERY_URL=jaeger)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["backend"]["seen"] == {"request": True, "job": True}


@contextlib.contextmanager
def only_jaeger(url):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            try:
                if not self.path.startswith("/api/"):
                    raise urllib.error.URLError("not here")
                with urllib.request.urlopen(url + self.path, timeout=10) as answer:
                    status, body = answer.status, answer.read()
            except urllib.error.URLError as error:
                status, body = getattr(error, "code", 404), b"{}"
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_collector_that_keeps_nothing_is_caught(doctor, tmp_path, receiver):
    """The collector said yes, and the backend that should have it does not."""
    with running(tmp_path / "data") as dev:
        done = doctor("--timeout=5", endpoint=receiver.url, CHEGOU_OTEL_QUERY_URL=dev.url)
    assert done.returncode == 1
    assert "✗ the collector took it, and it is not in" in " ".join(section(done, "TRIED").split())
    assert "request, job, log line: the collector took it" in section(done, "TO FIX")
    assert "see the collector's exporters" in section(done, "TO FIX")


def test_a_script_without_django(doctor, receiver):
    done = doctor(endpoint=receiver.url, OTEL_SERVICE_NAME="importer")
    assert done.returncode == 0
    assert "importer" in section(done, "WIRED")
    assert "a span (there is no Django here): ✓" in section(done, "TRIED")
    assert "no Django project here" in section(done, "TO FIX")


def test_no_queue_is_touched(doctor, project, receiver, tmp_path):
    with running_redis(tmp_path) as port:
        settings = project / "shop/settings.py"
        settings.write_text(settings.read_text() + f'RQ_QUEUES = {{"default": {{"URL": "redis://127.0.0.1:{port}/0"}}}}\n')
        import redis

        client = redis.Redis(port=port)
        client.config_resetstat()
        assert doctor(cwd=project, endpoint=receiver.url, REDIS_URL=f"redis://127.0.0.1:{port}/0").returncode == 0
        assert client.info("commandstats").keys() <= {"cmdstat_client|setinfo", "cmdstat_config|resetstat", "cmdstat_info"}


def test_without_rq_and_redis(doctor, receiver, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import importlib.metadata as m
        real = m.version
        def version(name):
            if name in ("rq", "redis"):
                raise m.PackageNotFoundError(name)
            return real(name)
        m.version = version
        """)
    )
    done = doctor(endpoint=receiver.url, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    assert "rq, redis" in section(done, "SKIPPED")
    assert "✓" in section(done, "TRIED").splitlines()[1]


# --- the way to the collector -----------------------------------------------------------------------------------------------------------


def test_nothing_runs(doctor):
    url = f"http://127.0.0.1:{free_port()}"
    done = doctor(endpoint=url)
    assert done.returncode == 1
    assert f"nothing listens on {url}" in done.stdout
    assert "start one with: chegou-otel dev" in done.stdout
    assert section(done, "TRIED").count("✗ not delivered; kept in the spool") == 3


@pytest.mark.parametrize(
    ("answer", "words", "fix"),
    [
        (Answer(status=401), "does not let us in (HTTP 401", "OTEL_EXPORTER_OTLP_HEADERS"),
        (Answer(status=404), "is no OTLP address", "without /v1/traces"),
        (Answer(status=302, headers={"location": "/elsewhere"}), "redirects", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (Answer(status=503), "cannot take it now", "the collector's log"),
        (Answer(body=b"<html>", content_type="text/html"), "no OTLP receiver", "a login page?"),
    ],
)
def test_an_answer_that_is_no_success(doctor, receiver, answer, words, fix):
    receiver.default = answer
    done = doctor("--json", "--timeout=6", endpoint=receiver.url)
    found = problems(done)
    assert done.returncode == 1
    assert all(words in what and fix in mend for what, mend in found.items()), found
    assert found


def test_a_port_of_grpc(doctor, tmp_path):
    with running(tmp_path / "data") as dev:
        what, fix = only_problem(doctor("--json", endpoint=f"http://{dev.addresses['grpc']}"))
    assert "speaks no HTTP" in what
    assert "4318" in fix


def test_by_grpc(doctor, tmp_path):
    with running(tmp_path / "data") as dev:
        done = doctor(endpoint=f"http://{dev.addresses['grpc']}", OTEL_EXPORTER_OTLP_PROTOCOL="grpc", CHEGOU_OTEL_QUERY_URL=dev.url)
    assert done.returncode == 0, done.stdout
    assert section(done, "WIRED").count("grpc → ") == 3
    assert section(done, "TRIED").count("✓ arrived") == 3


def test_a_certificate_for_another_name(doctor, keys):  # noqa: F811
    server = tls_receiver(keys, "wrong")
    try:
        env = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(keys / "wrong.pem")}
        what, fix = only_problem(doctor("--json", endpoint=server.url, **env))
        assert "is for another name" in what
        assert "a name that the certificate holds" in fix
        what, fix = only_problem(doctor("--json", endpoint=server.url))
        assert "is not trusted" in what
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in fix
    finally:
        server.close()


def test_a_host_that_nobody_knows(doctor):
    what, fix = only_problem(doctor("--json", endpoint="http://collector.invalid:4318"))
    assert "there is no host for http://collector.invalid:4318" in what
    assert "correct the name" in fix


@pytest.mark.parametrize("hanging", ["after the request", "before anything"])
def test_a_collector_that_hangs_costs_no_more_than_the_time_given(doctor, receiver, hanging):
    receiver.default = HANG
    with raw_server(lambda sock: time.sleep(30)) as mute:
        began = time.monotonic()
        done = doctor("--json", "--timeout=5", endpoint=receiver.url if hanging == "after the request" else mute)
        assert time.monotonic() - began < 5 + 1.5 * PATIENCE  # the start of two Pythons comes on top
    found = problems(done)
    assert any("does not answer in time" in what for what in found), found


def test_a_clock_that_is_wrong(doctor, receiver):
    receiver.server.RequestHandlerClass.date_time_string = lambda *_: formatdate(time.time() + 3600, usegmt=True)
    what, fix = only_problem(doctor("--json", endpoint=receiver.url))
    assert 3590 < int(what.split(" s behind the receiver's")[0].rpartition(" ")[2]) < 3610
    assert "synchronise" in fix


# --- the configuration ------------------------------------------------------------------------------------------------------------------


def test_switched_off(doctor, receiver):
    what, fix = only_problem(doctor("--json", endpoint=receiver.url, OTEL_SDK_DISABLED="true"))
    assert "OTEL_SDK_DISABLED" in what
    assert fix == "unset OTEL_SDK_DISABLED"
    assert not receiver.requests
    assert "nothing: OTEL_SDK_DISABLED is set" in section(doctor(endpoint=receiver.url, OTEL_SDK_DISABLED="true"), "WIRED")


def test_switched_off_while_processes_run(doctor, receiver, tmp_path):
    switch = [sys.executable, "-m", "chegou_otel"]
    spool = ["--spool-dir", str(tmp_path / "spool")]
    # It writes wherever a process of this user may look.
    nowhere_else = {**os.environ, **dict.fromkeys(("HOME", "XDG_STATE_HOME", "TMPDIR"), str(tmp_path / "home"))}
    subprocess.run([*switch, "off", *spool, "--reason", "a drill"], check=True, timeout=60, env=nowhere_else)
    told = doctor("--json", endpoint=receiver.url, CHEGOU_OTEL_SPOOL_DIR=str(tmp_path / "spool"))
    what, fix = only_problem(told)
    assert "a drill" in what
    assert fix.startswith("chegou-otel on")
    assert not receiver.requests


def test_a_setting_that_does_not_exist(doctor, receiver):
    done = doctor(endpoint=receiver.url, CHEGOU_OTEL_SPOL_DIR="/x")
    assert done.returncode == 0
    assert "did you mean CHEGOU_OTEL_SPOOL_DIR?" in section(done, "TO FIX")


def test_nothing_calls_setup(doctor, project, receiver):
    (project / "shop/settings.py").write_text(textwrap.dedent(SETTINGS).rpartition("chegou_otel.setup")[0])
    done = doctor(cwd=project, endpoint=receiver.url)
    assert done.returncode == 0
    assert "nothing in shop.settings calls chegou_otel.setup()" in " ".join(section(done, "TO FIX").split())


def test_the_application_s_module_calls_setup(doctor, project, receiver):
    text = textwrap.dedent(SETTINGS).rpartition("chegou_otel.setup")[0]
    (project / "shop/settings.py").write_text(f'{text}WSGI_APPLICATION = "shop.wsgi.application"\n')
    (project / "shop/wsgi.py").write_text(
        "import chegou_otel\nfrom django.core.wsgi import get_wsgi_application\n"
        'chegou_otel.setup("from-wsgi")\napplication = get_wsgi_application()\n'
    )
    done = doctor(cwd=project, endpoint=receiver.url)
    assert done.returncode == 0
    assert "shop.wsgi" in section(done, "WIRED")
    assert "from-wsgi" in section(done, "WIRED")


def test_settings_that_do_not_load(doctor, project, receiver):
    (project / "shop/settings.py").write_text("1/0\n")
    what, fix = only_problem(doctor("--json", cwd=project, endpoint=receiver.url))
    assert "ZeroDivisionError" in what
    assert "--settings" in fix
    assert "nowhere" in only_problem(doctor("--json", "--settings=nowhere.settings", endpoint=receiver.url))[0]


def test_settings_that_hang_are_given_up_and_leave_no_process(doctor, project, receiver):
    (project / "shop/settings.py").write_text("import subprocess, time\nsubprocess.Popen(['sleep', '987.6'])\ntime.sleep(60)\n")
    began = time.monotonic()
    what, _ = only_problem(doctor("--json", "--timeout=3", cwd=project, endpoint=receiver.url))
    assert time.monotonic() - began < 3 + 1.5 * PATIENCE
    assert "was not done in time with: loading the configuration" in what
    until(lambda: not [each for each in psutil.process_iter(["cmdline"]) if "987.6" in (each.info["cmdline"] or [])])


def test_settings_that_end_the_process(doctor, project, receiver):
    (project / "shop/settings.py").write_text("import os, sys\nprint('out of licence', flush=True)\nos._exit(3)\n")
    what, _ = only_problem(doctor("--json", cwd=project, endpoint=receiver.url))
    assert "ended at: loading the configuration (out of licence)" in what


def test_a_request_that_fails_is_the_application_s(doctor, project, receiver):
    (project / "shop/middleware.py").write_text("def broken(get_response):\n    raise RuntimeError('no licence')\n")
    settings = project / "shop/settings.py"
    settings.write_text(settings.read_text().replace("django.middleware.common.CommonMiddleware", "shop.middleware.broken"))
    found = problems(doctor("--json", cwd=project, endpoint=receiver.url))
    assert "the request failed: RuntimeError: no licence" in found


def test_what_was_not_sampled_is_said(doctor, receiver):
    done = doctor(endpoint=receiver.url, OTEL_TRACES_SAMPLER="always_off")
    assert done.returncode == 0
    assert "OTEL_TRACES_SAMPLER=always_on" in section(done, "TO FIX")
    assert "nothing was recorded" in section(done, "TRIED")


def test_what_was_not_recorded_is_not_waited_for(doctor, tmp_path):
    with running(tmp_path / "data") as dev:
        began = time.monotonic()
        done = doctor("--timeout=30", endpoint=dev.url, OTEL_TRACES_SAMPLER="always_off", CHEGOU_OTEL_QUERY_URL=None)
        assert time.monotonic() - began < 15
    assert done.returncode == 0
    assert "log line        a warning: ✓ arrived" in section(done, "TRIED")


def test_a_signal_that_is_off(doctor, receiver):
    done = doctor(endpoint=receiver.url, OTEL_METRICS_EXPORTER="none")
    assert done.returncode == 0
    assert "metrics         off" in section(done, "WIRED")


# --- the spool --------------------------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_to(doctor, receiver, tmp_path):
    readonly = tmp_path / "readonly"
    readonly.mkdir(mode=0o500)
    folder = readonly if os.geteuid() else "/proc"
    what, fix = only_problem(doctor("--json", endpoint=receiver.url, CHEGOU_OTEL_SPOOL_DIR=f"{folder}/spool", HOME=str(tmp_path)))
    assert "the spool is not where it was meant to be" in what
    assert "CHEGOU_OTEL_SPOOL_DIR" in fix


def test_no_folder_at_all(doctor, receiver):
    nowhere = dict.fromkeys(("CHEGOU_OTEL_SPOOL_DIR", "HOME", "XDG_STATE_HOME"), "/proc/nowhere")
    what, _ = only_problem(doctor("--json", endpoint=receiver.url, **nowhere, TMPDIR="/proc/nowhere"))
    assert "lies in memory" in what


def test_what_dead_processes_lost_and_left(doctor, receiver, tmp_path):
    source = """
        import logging, os, chegou_otel
        telemetry = chegou_otel.setup("shop", spool_max_bytes=8 << 20, integrations=[])
        log = logging.getLogger("shop")
        for _ in range(9000):
            log.warning("x" * 1000)
        os._exit(0)
    """
    env = environment({
        "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path / "spool"), "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
    })  # fmt: skip
    subprocess.run([CLI[0], "-c", textwrap.dedent(source)], env=env, check=True, timeout=60, capture_output=True)
    done = doctor("--json", endpoint=receiver.url, OTEL_SERVICE_NAME="shop")
    left = [each["accounts"]["logs"] for each in json.loads(done.stdout)["left"]]
    assert not any(each["alive"] for each in json.loads(done.stdout)["left"])
    assert sum(each["created"] for each in left) == 9000
    lost = sum(each["dropped"].get("pressure", 0) + each["dropped"].get("full", 0) for each in left)
    assert lost > 0
    assert sum(each["held"] for each in left) == 9000 - lost


def test_what_a_living_process_has_lost(doctor, receiver, tmp_path):
    """Its segments are read, not taken: it goes on with them."""
    source = """
        import logging, sys, chegou_otel
        telemetry = chegou_otel.setup("shop", spool_max_bytes=8 << 20, integrations=[])
        log = logging.getLogger("shop")
        for _ in range(9000):
            log.warning("x" * 1000)
        print("ready", flush=True)
        sys.stdin.read()
        account = telemetry.runtime.recorder.ledger()["logs"]
        print(account.created, account.dropped["pressure"], account.held, flush=True)
    """
    env = environment({
        "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path / "spool"), "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
    })  # fmt: skip
    command = [CLI[0], "-c", textwrap.dedent(source)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        process.stdout.readline()
        done = doctor(endpoint=receiver.url, OTEL_SERVICE_NAME="shop")
        process.stdin.close()
        created, dropped, held = map(int, process.stdout.read().split())
    assert done.returncode == 0
    assert f"logs            {dropped} (pressure)" in section(done, "LOST")
    assert "processes that are gone" not in section(done, "LOST")
    assert (created, held) == (9000, 9000 - dropped)
    assert len(receiver.logs) == 1


# --- how it is called -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--timeout=0"], ["--timeout=soon"], ["patient"]])
def test_wrong_usage(doctor, options):
    done = doctor(*options)
    assert done.returncode == 2
    assert "usage: chegou-otel doctor" in done.stderr
