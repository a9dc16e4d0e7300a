"""`./run demo`: start everything, send traffic, and show the story of one request."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import requests
from hub import CLI, HERE, Hub
from processes import Process, Processes, StartError, free_port, until
from story import Story, missing

CORRELATION_HEADER = "X-Correlation-ID"
ASKING = 5  # seconds that one `find` waits for a story that is not complete
ORDERS = [("Ana Souza", "01310-100", "189.90"), ("Bruno Lima", "20040-020", "59.00"), ("Carla Dias", "01310-100", "320.50")]
VISITS = ["/", "/pedidos/", "/pedidos/painel/", "/pedidos/relatorio/", "/pedidos/quebrado/"]


def step(text: str) -> None:
    """One line of progress."""
    print(f"  {text}", flush=True)


class Demo:
    """The example, the local backend, and what a visitor does."""

    def __init__(self, processes: Processes, args: argparse.Namespace) -> None:
        self.args = args
        self.hub = Hub(processes)
        self.backend: dict[str, Any] = {}

    def start(self) -> None:
        """Start the programs; those that do not need each other start side by side."""
        backend = self.start_backend()
        self.hub.start_redis()
        step(f"Redis      {self.hub.redis_url}")
        self.hub.start_logistica()
        step(f"logistica  {self.hub.logistica_url}   a stub of the carrier's API")
        self.hub.migrate()
        self.wait_for_backend(backend)
        step(f"backend    {self.backend['url']}   OTLP in, SQLite, the story page")
        web = self.hub.start_web(port=self.args.port, wait=False)
        self.hub.start_worker("run", "-c", "chegou_hub.rqconfig")  # a parent that has loaded Django forks work-horses that need not
        step("RQ worker  chegou-otel run -- rq worker -c chegou_hub.rqconfig")
        self.hub.wait_for_web(web)
        step(f"Django     {self.hub.url}   behind gunicorn")

    def start_backend(self) -> Process:
        """`chegou-otel dev` on a port that is chosen here, so that nobody has to wait for it to say so."""
        port = self.args.backend_port or free_port()
        folder = self.hub.processes.folder
        self.hub.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool")}
        command = [*CLI, "dev", "--json", "--no-grpc", "--port", str(port), "--data", str(folder / "backend")]
        return self.hub.processes.start("backend", command, cwd=HERE, env=self.hub.environment())

    def wait_for_backend(self, backend: Process) -> None:
        """It says where it listens as a line of JSON."""
        backend.wait_for(lambda: first_json(backend), "listening")
        self.backend = first_json(backend)

    def traffic(self) -> str:
        """What customers do; the correlation ID of the first order."""
        ids = []
        for cliente, cep, valor in ORDERS:
            answer = requests.post(f"{self.hub.url}/pedidos/", json={"cliente": cliente, "cep": cep, "valor": valor}, timeout=30)
            answer.raise_for_status()
            ids.append(answer.headers.get(CORRELATION_HEADER, ""))
            step(f"POST /pedidos/  → {answer.status_code}  {ids[-1]}")
        for path in VISITS:
            answer = requests.get(f"{self.hub.url}{path}", timeout=30)
            step(f"GET  {path}  → {answer.status_code}  {answer.headers.get(CORRELATION_HEADER, '')}")
        if not ids[0]:
            raise StartError(f"The answer had no {CORRELATION_HEADER} header: chegou_otel.setup() is not active in the web server")
        return ids[0]

    def find(self, correlation_id: str, *options: str) -> subprocess.CompletedProcess[str]:
        """`chegou-otel find`."""
        command = [*CLI, "find", correlation_id, "--url", self.backend["url"], *options]
        env = {**os.environ, **self.hub.environment()}
        return subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True, timeout=30 + ASKING, check=False)

    def story(self, correlation_id: str) -> Story:
        """What the backend knows by now."""
        result = self.find(correlation_id, "--json", "--wait", str(ASKING))
        with contextlib.suppress(ValueError):
            told = json.loads(result.stdout)
            return Story(told["spans"], told["logs"])
        return Story([], [])

    def wait_for_story(self, correlation_id: str) -> None:
        """Ask until every chapter is there."""
        gaps: list[str] = []

        def complete() -> bool:
            gaps[:] = missing(self.story(correlation_id))
            return not gaps

        if not until(complete, self.args.deadline, pause=0.2):
            said = self.find(correlation_id)
            raise StartError(
                f"After {self.args.deadline:.0f} s the story of {correlation_id} lacks: {', '.join(gaps)}.\n"
                f"What is there:\n{said.stdout}{said.stderr}"
            )


def first_json(process: Process) -> dict[str, Any]:
    """The first line that is a JSON object, or {}."""
    for line in process.text().splitlines():
        if line.startswith("{") and line.endswith("}"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {}


def perform(demo: Demo) -> None:
    """From nothing to the story of one request."""
    began = time.monotonic()
    print("Starting the example")
    demo.start()
    print("Sending traffic")
    correlation_id = demo.traffic()
    print("Waiting for the story (the job fails once and is tried again)")
    demo.wait_for_story(correlation_id)
    print(f"\nThe story of {correlation_id}\n")
    print(demo.find(correlation_id).stdout.rstrip())
    print(f"\nCorrelation ID  {correlation_id}")
    print(f"The same page   {demo.backend['url']}/c/{correlation_id}")
    print(f"From nothing to here in {time.monotonic() - began:.1f} s", flush=True)


def stay(demo: Demo) -> None:
    """Until Ctrl-C, or until one of the programs ends by itself."""
    print(f"\nThe example listens on {demo.hub.url}: try  curl -i {demo.hub.url}/pedidos/")
    print("Ctrl-C ends it.", flush=True)
    running = [process for process in demo.hub.processes.running if process.name != "migrate"]
    while True:
        for process in running:
            if process.returncode is not None:
                process.wait_for(lambda: False, "running", 0)
        time.sleep(0.5)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code says whether the story was complete."""
    parser = argparse.ArgumentParser(prog="./run demo")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--backend-port", type=int, default=0)
    parser.add_argument("--deadline", type=float, default=60, help="seconds that the story may take")
    parser.add_argument("--keep-data", action="store_true")
    args = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    folder = Path(tempfile.mkdtemp(prefix="chegou-hub-"))
    keep = args.keep_data
    try:
        with Processes(folder) as processes:
            demo = Demo(processes, args)
            perform(demo)
            if not args.once:
                stay(demo)
    except KeyboardInterrupt:
        print("\nStopped.")
    except (StartError, requests.RequestException, subprocess.TimeoutExpired) as error:
        keep = True
        print(f"\n✘ The demo did not complete: {error}", file=sys.stderr)
        return 1
    finally:
        if keep:
            print(f"Databases and logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
