"""Telemetry off and on while a process runs: by a file, by a key in a Redis, and by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chegou_otel import _switch
from chegou_otel.cli import main
from tests.delivery.receiver import Receiver, wait_for

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Folders of our own, for this process and those that it starts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    for name in [name for name in os.environ if name.startswith("CHEGOU_OTEL_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


# -- the file ----------------------------------------------------------------------------------------------------------


def test_it_is_on_until_somebody_switches_it_off(capsys):
    assert _switch.state("shop") is None
    before = time.time()
    assert main(["off", "shop", "--reason", "a noisy neighbour"]) == 0
    off = _switch.state("shop")

    assert off.reason == "a noisy neighbour"
    assert before - 1 < off.since < time.time() + 1
    assert "@" in off.by
    assert f"shop: off since {time.strftime('%Y-%m-%d', time.gmtime(off.since))}" in capsys.readouterr().out
    assert _switch.state("other") is None
    assert main(["on", "shop"]) == 0
    assert _switch.state("shop") is None
    assert "shop: on" in capsys.readouterr().out


def test_all_services_of_a_user(capsys):
    assert main(["off"]) == 0
    assert _switch.state("shop")
    assert _switch.state("an other/one")
    assert main(["on", "shop"]) == 0
    assert "shop: off since" in capsys.readouterr().out, "it is still off, and that is said"
    assert main(["on"]) == 0
    assert _switch.state("shop") is None


def test_a_spool_dir_of_their_own(home, capsys):
    spool = str(home / "spool")
    assert main(["off", "shop", "--spool-dir", spool]) == 0
    (home / "state" / "chegou-otel" / "shop@off").unlink()
    assert _switch.state("shop") is None or "tmp" in _switch.state("shop").where
    assert _switch.state("shop", spool).where == f"{spool}/shop@off"
    assert main(["on", "shop", "--spool-dir", spool]) == 0
    assert _switch.state("shop", spool) is None


def test_the_status_changes_nothing(capsys):
    assert main(["off", "shop"]) == 0
    capsys.readouterr()
    assert main(["off", "--status"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "all services: on"
    assert said[1].startswith("shop: off since")
    assert main(["off", "other", "--status"]) == 0
    assert capsys.readouterr().out == "other: on\n"


def test_a_folder_that_cannot_be_written_to_is_said(home, monkeypatch, capsys):
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file" / "x"))
    monkeypatch.setenv("TMPDIR", str(home / "file" / "x"))
    assert main(["off"]) == 1
    assert "--spool-dir" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "because", "[1]", '{"since": "now", "by": null}', "\0\xff"])
def test_a_file_made_by_hand_will_do(home, text):
    path = home / "x@off"
    path.write_text(text)
    off = _switch.read(str(path))
    assert off.since == path.stat().st_mtime
    assert off.by == f"user {os.geteuid()}"
    assert str(off).startswith("off since 20")


def test_what_is_no_file_of_ours_says_nothing(home):
    folder, link, pipe = (home / name for name in ("folder", "link", "pipe"))
    folder.mkdir()
    link.symlink_to(home / "state")
    os.mkfifo(pipe)
    for path in (folder, link, pipe, home / "absent"):
        assert _switch.read(str(path)) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_says_nothing(home):
    path = home / "x@off"
    path.write_text("{}")
    path.chmod(0)
    assert _switch.read(str(path)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.root
def test_a_stranger_s_file_says_nothing(home):
    path = home / "x@off"
    path.write_text("{}")
    os.chown(path, 4711, 4711)
    assert _switch.read(str(path)) is None


# -- a process ---------------------------------------------------------------------------------------------------------

#: A process that does what it is told line by line, and answers each.
PROGRAM = """
import json, logging, os, sys
import chegou_otel
from opentelemetry import metrics, trace
telemetry = chegou_otel.setup("shop", active="always", exit_timeout=5.0)
tracer, counter = trace.get_tracer("x"), metrics.get_meter("x").create_counter("sold")

def work(name):
    with chegou_otel.use_correlation_id("pedido-0001"), tracer.start_as_current_span(name):
        record = logging.LogRecord("shop", 40, "x.py", 1, name, (), None)
        logging.getLogger("shop").handle(record)
        counter.add(1)
        return record.__dict__.get("correlation_id")

def fork(name):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        import time
        while telemetry.off:
            time.sleep(0.02)
        work(name)
        os._exit(0 if telemetry.flush(10) else 3)
    finally:
        os._exit(4)

def held(_):
    return sum(account.held for account in telemetry.runtime.recorder.ledger().values())

calls = {"work": work, "off": lambda _: str(telemetry.off or ""), "flush": lambda _: telemetry.flush(5), "fork": fork, "held": held,
         "lost": lambda _: [account.dropped for account in telemetry.runtime.recorder.ledger().values()],
         "said": lambda _: repr(telemetry)}
print("ready", flush=True)
for line in sys.stdin:
    name, _, argument = line.strip().partition(" ")
    print(json.dumps(calls[name](argument)), flush=True)
"""


class Process:
    def __init__(self, receiver, **env):
        own = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST"))}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**own, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.popen.stdout.readline() == "ready\n"

    def ask(self, line):
        self.popen.stdin.write(f"{line}\n")
        self.popen.stdin.flush()
        return json.loads(self.popen.stdout.readline())

    def wait_off(self, *, off=True):
        return wait_for(lambda: bool(self.ask("off")) is off, 5, f"off: {off}")

    def close(self):
        self.popen.stdin.close()
        return self.popen.wait(20)


@pytest.fixture
def start(receiver):
    started = []

    def begin(**env):
        started.append(Process(receiver, **env))
        return started[-1]

    yield begin
    for process in started:
        process.popen.kill()
        process.popen.wait()


def names(receiver):
    return [span.name for span, _, _ in receiver.spans], [
        log.body.string_value for log, _, _ in receiver.logs if "telemetry" not in log.body.string_value
    ]


def test_a_process_stops_and_goes_on(start, receiver, capsys):
    process = start()
    assert process.ask("work before") == "pedido-0001"
    assert process.ask("flush")
    main(["off", "shop", "--reason", "quiet please"])
    process.wait_off()
    asked = len(receiver.requests)

    assert process.ask("work while") == "pedido-0001", "records keep their correlation ID"
    assert "quiet please" in process.ask("said")
    assert process.ask("flush"), "nothing is held, so there is nothing to wait for"
    assert not any(process.ask("lost"))
    time.sleep(1.5)
    assert len(receiver.requests) == asked, "nothing is sent"
    main(["on", "shop"])
    process.wait_off(off=False)
    process.ask("work after")
    assert process.ask("flush")

    assert names(receiver) == (["before", "after"],) * 2
    assert process.close() == 0


def test_what_was_held_stays_and_is_sent_when_it_is_on_again(start, receiver, monkeypatch):
    receiver.default = type(receiver.default)(status=503)
    process = start()
    process.ask("work held")
    wait_for(lambda: receiver.requests, 10, "a first try")
    main(["off"])
    process.wait_off()
    held, asked = process.ask("held"), len(receiver.requests)
    receiver.default = type(receiver.default)()

    assert held >= 2
    begun = time.monotonic()
    assert not process.ask("flush"), "something is held"
    assert time.monotonic() - begun < 2
    assert process.ask("held") == held
    assert len(receiver.requests) == asked
    main(["on"])
    wait_for(lambda: "held" in names(receiver)[0], 15, "what was held")


def test_a_process_that_begins_while_it_is_off_goes_on_when_it_is_on(start, receiver):
    main(["off", "shop"])
    process = start()
    assert process.ask("off")
    process.ask("work while")
    main(["on", "shop"])
    process.wait_off(off=False)
    process.ask("work after")
    assert process.ask("flush")
    assert names(receiver)[0] == ["after"]


def test_a_child_that_is_forked_while_it_is_off_goes_on_when_it_is_on(start, receiver):
    main(["off", "shop"])
    process = start()
    threading.Timer(1.5, main, [["on", "shop"]]).start()
    assert process.ask("fork child") == 0
    wait_for(lambda: names(receiver)[0] == ["child"], 10, "the child's span")


def test_an_exit_while_it_is_off_is_quick_and_sends_nothing(start, receiver):
    process = start()
    process.ask("work before")
    assert process.ask("flush")
    main(["off", "shop"])
    process.wait_off()
    asked, begun = len(receiver.requests), time.monotonic()
    assert process.close() == 0
    assert time.monotonic() - begun < 3
    assert len(receiver.requests) == asked


# -- a Redis -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("service", [[], ["shop"]])
def test_a_key_in_redis(start, receiver, redis_client, redis_port, service, capsys):
    url = f"redis://127.0.0.1:{redis_port}/0"
    process = start(CHEGOU_OTEL_SWITCH_REDIS_URL=url)
    process.ask("work before")
    assert process.ask("flush")
    assert main(["off", *service, "--redis", url, "--reason", "everywhere"]) == 0
    wait_for(lambda: "everywhere" in process.ask("off"), 10, "off")
    process.ask("work while")
    assert main(["off", *service, "--redis", url, "--status"]) == 0
    assert "off since" in capsys.readouterr().out.splitlines()[-1]
    assert main(["on", *service, "--redis", url]) == 0
    wait_for(lambda: not process.ask("off"), 10, "on")
    process.ask("work after")
    assert process.ask("flush")

    assert names(receiver)[0] == ["before", "after"], "and asking Redis is no span"
    assert capsys.readouterr().out.splitlines()[-1].endswith(": on")


def test_a_redis_that_does_not_answer_is_no_reason_to_stop(start, receiver):
    import socket

    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        process = start(CHEGOU_OTEL_SWITCH_REDIS_URL=f"redis://127.0.0.1:{hole.getsockname()[1]}/0")
        begun = time.monotonic()
        process.ask("work here")
        assert process.ask("flush")
        assert time.monotonic() - begun < 2, "nobody waits for it"
        assert names(receiver)[0] == ["here"]
        assert process.close() == 0


def test_an_address_that_is_none_is_said(start):
    assert "switch_redis_url" in start(CHEGOU_OTEL_SWITCH_REDIS_URL="nonsense").ask("said")


def test_the_command_says_when_redis_is_not_there(capsys):
    assert main(["off", "--redis", "redis://127.0.0.1:1/0"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
