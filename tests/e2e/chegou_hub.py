"""The example's programs for tests: `with running(tmp_path, endpoint=...) as hub: requests.get(hub.url)`."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "chegou_hub"
if str(FOLDER) not in sys.path:  # the example is a folder of programs, not a package
    sys.path.append(str(FOLDER))

from hub import SERVERS, WORKERS, Hub  # noqa: E402
from processes import Process, Processes, StartError, answers, free_port, until  # noqa: E402
from story import CHAPTERS, Story, missing  # noqa: E402

__all__ = [
    "CHAPTERS",
    "FOLDER",
    "ROOT",
    "SERVERS",
    "WORKERS",
    "Hub",
    "Process",
    "Processes",
    "StartError",
    "Story",
    "answers",
    "free_port",
    "missing",
    "running",
    "until",
]

# A test runner's marks must not reach the programs: they are what runs in production.
NOT_A_TEST = {"PYTEST_CURRENT_TEST": "", "PYTEST_VERSION": ""}


@contextmanager
def running(
    folder: Path,
    *,
    endpoint: str,
    server: str = "gunicorn",
    worker: str | None = "run",
    env: Mapping[str, str] | None = None,
) -> Iterator[Hub]:
    """Redis, the carrier's stub, a web server (one of SERVERS) and a worker (one of WORKERS, or none), ended on the way out."""
    with Processes(folder) as processes:
        hub = Hub(processes, env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool"), **NOT_A_TEST})
        hub.env |= env or {}
        hub.start_redis()
        hub.start_logistica()
        hub.migrate()
        hub.start_web(server)
        if worker:
            hub.start_worker(worker)
        yield hub
