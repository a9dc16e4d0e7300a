"""docs/troubleshooting.md: the lines that it explains are the lines that are said, and its snippets run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.delivery.receiver import Answer, Receiver
from tests.docs.pages import ROOT, blocks
from tests.redis_server import free_port

PAGES = [ROOT / "docs" / "troubleshooting.md", ROOT / "docs" / "pt-br" / "nao-vejo-nada.md"]
TEXT = [page.read_text(encoding="utf-8") for page in PAGES]
((_, CHECK),) = blocks(PAGES[0], "python")


def run(code, folder, *argv, **variables):
    """In a fresh Python, as a newcomer runs it."""
    env = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *argv],
        cwd=folder,
        env={**env, "PYTHONPATH": f"{ROOT}:{folder}", "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool"), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def receiver():
    found = Receiver()
    yield found
    found.close()


def both_say(line):
    for text in TEXT:
        assert line in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_check_tells_that_it_arrived(tmp_path, receiver, page):
    ((_, code),) = blocks(page, "python")
    done = run(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)

    assert done.stdout.split() in (["sent:", "True"], ["enviado:", "True"])
    assert receiver.names() == ["hello"]
    assert receiver.logs[0][0].body.string_value == "hello"


def test_nobody_there(tmp_path):
    done = run(CHECK, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://localhost:{free_port()}")

    assert "sent: False" in done.stdout
    assert "nothing listens on http://localhost:" in done.stderr
    both_say("nothing listens on http://localhost:4318/")


@pytest.mark.parametrize(("status", "line"), [(404, "HTTP 404 Not Found"), (401, "HTTP 401")])
def test_an_answer_that_refuses(tmp_path, receiver, status, line):
    receiver.default = Answer(status)
    done = run(CHECK, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)

    assert "sent: False" in done.stdout
    assert line in done.stderr
    both_say(line)


def test_https_to_http(tmp_path, receiver):
    done = run(CHECK, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url.replace("http://", "https://"))

    assert "WRONG_VERSION_NUMBER" in done.stderr
    both_say("WRONG_VERSION_NUMBER")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "idle='OTEL_SDK_DISABLED is set'"),
        ({"CHEGOU_OTEL_ACTIVE": "never"}, "idle=\"active='never'\""),
    ],
)
def test_switched_off(tmp_path, receiver, variables, line):
    done = run("import chegou_otel; print(chegou_otel.setup())", tmp_path, **variables)

    assert line in done.stdout
    assert line in TEXT[0]
    run(CHECK, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **variables)
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["manage.py", "runserver"], "runserver's reloader does not serve; its child does"),
        (["manage.py", "migrate"], "`migrate` sends nothing unless asked"),
        (["/usr/bin/pytest"], "a test runner is at work; nothing is sent"),
    ],
)
def test_reasons_to_be_idle(argv, line, tmp_path):
    code = f"import sys; sys.argv = {argv!r}; import chegou_otel; print(chegou_otel.setup().idle)"

    assert line in run(code, tmp_path).stdout
    both_say(line)


@pytest.mark.parametrize(
    "variables", [{"OTEL_TRACES_SAMPLER": "always_off"}, {"OTEL_TRACES_EXPORTER": "none"}, {"CHEGOU_OTEL_TRACES": "false"}]
)
def test_logs_arrive_and_spans_do_not(tmp_path, receiver, variables):
    run(CHECK, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **variables)

    assert receiver.names() == []
    assert len(receiver.logs) == 1
    for name, value in variables.items():
        both_say(f"{name}={value}")


def test_records_below_their_logger_s_level_do_not_exist(tmp_path, receiver):
    code = """
        import logging, chegou_otel
        telemetry = chegou_otel.setup("levels")
        logging.getLogger("shop").info("before")
        logging.getLogger().setLevel("INFO")
        logging.getLogger("shop").info("after")
        telemetry.flush()
    """
    run(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)

    assert [log.body.string_value for log, _, _ in receiver.logs] == ["after"]


def test_a_line_for_each_variable_that_means_nothing_here(tmp_path):
    done = run("import chegou_otel; chegou_otel.setup()", tmp_path, OTEL_EXPORTER_OTLP_PROTOCOL="avro", CHEGOU_OTEL_USER="everybody")

    assert done.stderr.count("OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf, http/json or grpc") == 1
    assert "CHEGOU_OTEL_USER='everybody' is ignored (" in done.stderr
    both_say("OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf, http/json or grpc")


def test_the_lines_of_other_parts_are_in_the_code():
    """What is said elsewhere (tested there) is worded as the pages have it."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "chegou_otel").rglob("*.py"))
    for line in (
        "telemetry was lost: ", "provider was set before", "was asked for and is skipped", "the answer is no HTTP (OTLP/gRPC, perhaps",
        "runs inside each RQ work-horse", "no run of it has arrived", "nobody to ask", "nothing is known about",
    ):  # fmt: skip
        assert line in source, line
