"""`chegou-otel run -- <command>`: the command runs as it would, only with telemetry set up."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.chegou_hub import Hub, Processes, answers, free_port

ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-m", "chegou_otel"]
PROVIDER = "from opentelemetry import trace; print(type(trace.get_tracer_provider()).__module__)"


def run(
    command: Sequence[str], *, before: Sequence[str] = CLI, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run `chegou-otel run -- command`, as an installed chegou-otel would be run."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "OTEL", "CHEGOU", "PYTHONPATH"))}
    path = os.pathsep.join(filter(None, [(env or {}).get("PYTHONPATH"), str(ROOT)]))
    return subprocess.run(
        [*before, "run", "--", *command],
        cwd=cwd,
        env={**variables, **(env or {}), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


def test_no_command_shows_the_usage() -> None:
    """Without a command it says how it is used."""
    result = run([])

    assert result.returncode == 2
    assert "chegou-otel run -- <command>" in result.stderr


def test_unknown_program() -> None:
    """As a shell says it: 127, and the name."""
    result = run(["no-such-program-here"])

    assert result.returncode == 127
    assert "no-such-program-here: command not found" in result.stderr


def test_program_that_cannot_be_executed(tmp_path: Path) -> None:
    """As a shell says it: 126."""
    file = tmp_path / "data"
    file.write_text("not a program")

    assert run([str(file)]).returncode == 126


@pytest.mark.parametrize("code", [0, 7])
def test_exit_code_is_the_commands(code: int) -> None:
    """Nothing stands between the command and its caller."""
    assert code == run(python(f"import sys; sys.exit({code})")).returncode


def test_signal_ends_the_command_as_without_us() -> None:
    """The command dies by the signal, it does not exit with a code."""
    assert run(python("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)")).returncode == -signal.SIGUSR1


def test_command_keeps_the_process() -> None:
    """The command has the PID that was started: supervisors signal the right process."""
    with subprocess.Popen(
        [*CLI, "run", "--", *python("import os; print(os.getpid())")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate(timeout=60)

    assert process.pid == int(output)


def test_arguments_arrive_as_they_are() -> None:
    """Options of the command are the command's, also those that we have too."""
    result = run([*python("import sys; print(sys.argv[1:])"), "--help", "--", "-x", "a b"])

    assert result.stdout.strip() == "['--help', '--', '-x', 'a b']"


def test_command_runs_with_telemetry() -> None:
    """The tracer provider is ours before the command's first line."""
    result = run(python(PROVIDER))

    assert "chegou_otel." in result.stdout
    assert result.returncode == 0


def test_without_run_there_is_no_telemetry() -> None:
    """The counter-proof of the test above."""
    result = subprocess.run(python(PROVIDER), capture_output=True, text=True, timeout=60, check=True)

    assert "chegou_otel" not in result.stdout


def test_children_of_the_command_run_with_telemetry() -> None:
    """A Python that is started by a shell, or again by a reloader, is set up too."""
    assert "chegou_otel." in run(["sh", "-c", f'{sys.executable} -c "{PROVIDER}"']).stdout


def test_not_installed_but_in_the_checkout(tmp_path: Path) -> None:
    """`python -m chegou_otel` from a checkout works for programs that do not see the checkout."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [*CLI, "run", "--", "sh", "-c", f"cd {tmp_path} && {sys.executable} -c '{PROVIDER}'"]

    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=True)

    assert "chegou_otel." in result.stdout


def test_sitecustomize_of_the_user_still_runs(tmp_path: Path) -> None:
    """Ours hides theirs on the path, so ours runs theirs, and it is the one that `import sitecustomize` gives."""
    (tmp_path / "sitecustomize.py").write_text("theirs = True")

    result = run(python("import sitecustomize; print(sitecustomize.theirs);" + PROVIDER), env={"PYTHONPATH": str(tmp_path)})

    assert "True" in result.stdout
    assert "chegou_otel." in result.stdout


def test_failing_sitecustomize_of_the_user_does_not_stop_us(tmp_path: Path) -> None:
    """Python reports their error as ever; telemetry is set up all the same."""
    (tmp_path / "sitecustomize.py").write_text("raise ValueError('theirs')")

    result = run(python(PROVIDER), env={"PYTHONPATH": str(tmp_path)})

    assert "chegou_otel." in result.stdout
    assert "theirs" in result.stderr


def test_failing_setup_is_one_line(tmp_path: Path) -> None:
    """When telemetry cannot be set up the command runs without it, and one line says why."""
    package = tmp_path / "chegou_otel"
    package.mkdir()
    (package / "__init__.py").write_text("def setup(): raise RuntimeError('no luck')")

    result = run(python("print(1)"), env={"PYTHONPATH": str(tmp_path)})

    assert result.stdout.strip() == "1"
    assert [line.partition("telemetry: ")[2] for line in result.stderr.splitlines()] == ["RuntimeError: no luck"]


def test_script_beside_this_python_is_found_when_its_environment_is_not_active() -> None:
    """`.venv/bin/chegou-otel run -- rq worker` finds `.venv/bin/rq`."""
    result = run(["rq", "--version"], env={"PATH": os.defpath})

    assert result.returncode == 0
    assert "version" in result.stdout


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_beside_opentelemetry_instrument(order: str) -> None:
    """Both are active, whichever starts the other."""
    pytest.importorskip("opentelemetry.instrumentation.auto_instrumentation")
    theirs = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    env = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    source = python(
        "import sys; print('opentelemetry.instrumentation.auto_instrumentation._load' in sys.modules, 'chegou_otel._setup' in sys.modules)"
    )

    result = run([theirs, *source], env=env) if order == "ours first" else run(source, env=env, before=[theirs, *CLI])

    assert result.stdout.strip() == "True True", result.stderr


def test_older_opentelemetry_instrument_takes_itself_off_the_path(tmp_path: Path) -> None:
    """Up to 0.60 it removes its folder from PYTHONPATH when it starts, and with that us: it is put back behind ours."""
    folder = tmp_path / "opentelemetry" / "instrumentation" / "auto_instrumentation"
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(
        "import os\n"
        "parts = os.environ['PYTHONPATH'].split(os.pathsep)\n"
        "os.environ['PYTHONPATH'] = os.pathsep.join(part for part in parts if part != os.path.dirname(__file__))\n"
        "active = True\n"
    )

    result = run(python("import sitecustomize; print(sitecustomize.active);" + PROVIDER), env={"PYTHONPATH": str(folder)})

    assert "True" in result.stdout
    assert "chegou_otel." in result.stdout


class TestRealPrograms:
    """Programs whose code has nothing of us in it."""

    def test_gunicorn(self, tmp_path: Path) -> None:
        """Its workers are set up, and it ends by SIGTERM as ever."""
        (tmp_path / "plain.py").write_text(
            "from opentelemetry import trace\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
            "    return [type(trace.get_tracer_provider()).__module__.encode()]\n"
        )
        port = free_port()
        with Processes(tmp_path) as processes:
            process = processes.start(
                "gunicorn",
                [*CLI, "run", "--", "gunicorn", "plain:app", "--bind", f"127.0.0.1:{port}"],
                cwd=tmp_path,
                env=plain_environment(tmp_path),
            )
            process.wait_for(lambda: answers(port), "listening")
            with urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                said = answer.read().decode()
            process.signal(signal.SIGTERM)

            assert said.startswith("chegou_otel.")
            assert process.wait(20) == 0

    def test_rq_worker(self, tmp_path: Path) -> None:
        """The work-horse is set up when its parent is, and a burst ends with its own exit code."""
        rq = pytest.importorskip("rq")
        redis = pytest.importorskip("redis")
        (tmp_path / "plain_jobs.py").write_text(
            "from opentelemetry import trace\n"
            "def provider():\n"
            "    span = trace.get_current_span()\n"
            "    return type(trace.get_tracer_provider()).__module__, type(span).__module__\n"
        )
        with Processes(tmp_path) as processes:
            hub = Hub(processes)
            hub.start_redis()
            queue = rq.Queue("plain", connection=redis.Redis.from_url(hub.redis_url))
            job = queue.enqueue("plain_jobs.provider")
            command = [*CLI, "run", "--", "rq", "worker", "--burst", "--url", hub.redis_url, "plain"]
            worker = processes.start("worker", command, cwd=tmp_path, env=plain_environment(tmp_path))

            assert worker.wait(60) == 0, worker.text()
            assert job.return_value() is not None, worker.text()
            assert all(module.startswith("chegou_otel.") for module in job.return_value())


def plain_environment(folder: Path) -> dict[str, str]:
    """Not a test's: programs started like this record, into a spool of their own, and nobody listens."""
    return {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "DJANGO_SETTINGS_MODULE": "",
        "PYTEST_CURRENT_TEST": "",
        "PYTEST_VERSION": "",
    }
