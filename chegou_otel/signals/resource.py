"""Who is talking: service, version, environment, role, and an instance that lives as long as its process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chegou_otel._settings import Settings

#: Where platforms say which commit they run and which environment they are.
_VERSION_VARIABLES: Final = ("SOURCE_VERSION", "RAILWAY_GIT_COMMIT_SHA", "RENDER_GIT_COMMIT", "HEROKU_SLUG_COMMIT", "GIT_COMMIT")
_ENVIRONMENT_VARIABLES: Final = ("RAILWAY_ENVIRONMENT_NAME", "DJANGO_ENV", "ENVIRONMENT")
_WEB: Final = {"gunicorn", "uvicorn", "daphne", "hypercorn", "granian", "uwsgi", "waitress-serve", "mod_wsgi-express"}
#: Django's commands that are a role of their own; every other one is a ``command``.
_DJANGO_ROLES: Final = {
    "runserver": "web",
    "testserver": "web",
    "rqworker": "worker",
    "rqworker-pool": "worker",
    "rqscheduler": "scheduler",
    "rqcron": "scheduler",
}
_RQ_ROLES: Final = {"worker": "worker", "worker-pool": "worker", "cron": "scheduler", "scheduler": "scheduler"}
#: Commands that start no delivery unless asked: they look at or change the project, they do not serve it.
_QUIET_COMMANDS: Final = frozenset(
    {
        "check", "collectstatic", "compilemessages", "dbshell", "diffsettings", "dumpdata", "findstatic", "inspectdb", "makemessages",
        "makemigrations", "migrate", "optimizemigration", "shell", "shell_plus", "showmigrations", "sqlmigrate", "squashmigrations",
        "startapp", "startproject", "test", "createsuperuser", "help", "version", "--help", "--version",
    }
)  # fmt: skip


def django_command(argv: Sequence[str]) -> str | None:
    """The management command of ``manage.py <command>`` or ``django-admin <command>``, if that is what runs."""
    program = Path(argv[0]).name if argv else ""
    is_django = program in ("manage.py", "django-admin", "django-admin.py") or argv[0].endswith("django/__main__.py")
    return argv[1] if is_django and len(argv) > 1 else None


def role_of(argv: Sequence[str]) -> str:
    """``web``, ``worker``, ``scheduler`` or ``command``, told from the command line."""
    command = django_command(argv)
    if command is not None:
        return _DJANGO_ROLES.get(command, "command")
    program = Path(argv[0]).name if argv else ""
    if program in _WEB or any(f"{os.sep}{name}{os.sep}" in (argv[0] if argv else "") for name in _WEB):
        return "web"
    if program == "rq" or (argv and argv[0].endswith("rq/__main__.py")):
        return next((_RQ_ROLES[word] for word in argv[1:] if word in _RQ_ROLES), "command")
    if program in ("rqworker", "rqscheduler"):
        return {"rqworker": "worker", "rqscheduler": "scheduler"}[program]
    return "command"


def idle_reason(argv: Sequence[str], environ: dict[str, str] | os._Environ[str]) -> str | None:
    """Why this process should send nothing (``active="auto"``), or ``None`` when it should."""
    command = django_command(argv)
    if command == "runserver" and "--noreload" not in argv and environ.get("RUN_MAIN") != "true":
        return "runserver's reloader does not serve; its child does"
    if command in _QUIET_COMMANDS:
        return f"`{command}` sends nothing unless asked (active='always')"
    program = Path(argv[0]).name if argv else ""
    if (
        "_pytest.config" in sys.modules
        or program in ("pytest", "py.test", "runtests.py")
        or f"{os.sep}unittest{os.sep}" in (argv[0] if argv else "")
    ):
        return "a test runner is at work; nothing is sent"
    return None


def default_service_name(argv: Sequence[str]) -> str:
    """The settings module's package, else the program's name. For ``rq worker -c shop.settings`` that module is the settings."""
    module = os.environ.get("DJANGO_SETTINGS_MODULE", "") or _rq_config(argv)
    if module:
        return module.partition(".")[0]
    stem = Path(argv[0]).stem if argv and argv[0] not in ("", "-c", "-m") else ""
    return stem or "unknown_service"


def _rq_config(argv: Sequence[str]) -> str:
    """What ``-c`` names on RQ's command line; empty for other programs."""
    if not argv or (Path(argv[0]).name != "rq" and not argv[0].endswith("rq/__main__.py")):
        return ""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word in ("-c", "--config"):
            return following
        if word.startswith("--config="):
            return word.partition("=")[2]
    return ""


def git_version(start: Path) -> str | None:
    """The commit checked out at or above ``start``, 12 digits, read without running git."""
    for folder in (start, *start.parents):
        git = folder / ".git"
        try:
            if git.is_file():  # a worktree: the file names the real folder
                git = Path(git.read_text().partition("gitdir:")[2].strip())
            head = (git / "HEAD").read_text().strip()
        except OSError:
            continue
        if not head.startswith("ref:"):
            return head[:12]
        return _resolve(git, head.removeprefix("ref:").strip())
    return None


def _resolve(git: Path, ref: str) -> str | None:
    common = git.parent.parent if git.parent.name == "worktrees" else git
    for folder in (git, common):
        try:
            return (folder / ref).read_text().strip()[:12]
        except OSError:
            continue
    try:
        packed = (common / "packed-refs").read_text()
    except OSError:
        return None
    return next((line[:12] for line in packed.splitlines() if line.endswith(f" {ref}")), None)


def _first(names: Sequence[str]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def create_resource(settings: Settings, role: str, version: str) -> Resource:
    """The resource of this process. ``OTEL_RESOURCE_ATTRIBUTES`` overrides what is guessed; arguments override that."""
    guessed = {
        "service.name": default_service_name(sys.argv),
        "service.version": _first(_VERSION_VARIABLES) or git_version(Path.cwd()),
        "deployment.environment.name": _first(_ENVIRONMENT_VARIABLES),
        "service.instance.id": str(uuid4()),
        "host.name": os.uname().nodename,
        "process.pid": os.getpid(),
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": sys.version.partition(" ")[0],
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.distro.name": "chegou-otel",
        "telemetry.distro.version": version,
        "chegou.role": role,
    }
    told = {
        "service.name": settings.service_name,
        "service.version": settings.service_version,
        "deployment.environment.name": settings.environment,
    }
    environment = OTELResourceDetector().detect()
    known: dict[str, Any] = {**guessed, **environment.attributes, **told}
    # Built directly: Resource.create would run every installed detector, threads included.
    known.update(_missing(told, guessed, environment))
    return Resource({key: value for key, value in known.items() if value is not None})


def of_child(resource: Resource) -> dict[str, Any]:
    """In a forked process that ships by itself: its series are its own, whoever it comes from. An ID that was given stays."""
    own: dict[str, Any] = {"process.pid": os.getpid()}
    if "service.instance.id" not in OTELResourceDetector().detect().attributes:
        own["service.instance.id"] = str(uuid4())
    return {**resource.attributes, **own}


def _missing(told: Mapping[str, str | None], guessed: Mapping[str, object], environment: Resource) -> dict[str, object]:
    """What an argument left open: the environment's value, else the guess."""
    return {key: environment.attributes.get(key, guessed[key]) for key, value in told.items() if value is None}
