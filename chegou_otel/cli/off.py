"""`chegou-otel off`: telemetry off, while the processes run. `chegou-otel on` undoes it; `off --status` says what is in force."""

import argparse
import getpass
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from chegou_otel import _switch
from chegou_otel._switch import KEY, Off
from chegou_otel.delivery import folder

HELP = "switch telemetry off while processes run, for one service or for all of this user"

FAILED = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Which service, where, why."""
    which(parser)
    parser.add_argument("--reason", default="", help="why, for whoever asks")
    parser.add_argument("--status", action="store_true", help="say what is in force; change nothing")


def which(parser: argparse.ArgumentParser) -> None:
    """The options that `on` has, too."""
    parser.add_argument("service", nargs="?", help="name of the service; default: all services")
    where = parser.add_mutually_exclusive_group()
    spool = os.environ.get("CHEGOU_OTEL_SPOOL_DIR")
    where.add_argument("--spool-dir", default=spool, metavar="DIR", help="the services' spool_dir, when they have one of their own")
    where.add_argument("--redis", metavar="URL", help="in this Redis, for all hosts whose setting switch_redis_url names it")


def run(args: argparse.Namespace) -> int:
    """Write, and say what holds now."""
    if args.redis:
        return in_redis(args, None if args.status else _now(args))
    written = [] if args.status else _write(_now(args), args)
    if not (written or args.status):
        print("chegou-otel off: no folder could be written to; name one with --spool-dir", file=sys.stderr)
        return FAILED
    return say(args)


def _now(args: argparse.Namespace) -> Off:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.geteuid())
    return Off(round(time.time(), 3), f"{user}@{socket.gethostname()}", args.reason, "")


def _write(off: Off, args: argparse.Namespace) -> list[str]:
    """Everywhere the processes may look: which of the folders they use depends on their environment."""
    written = []
    for path in _switch.places(args.service, args.spool_dir):
        try:
            folder.make(str(Path(path).parent))
            _put(Path(path), off.encode())
        except OSError as error:
            print(f"{path}: {error.strerror or error}", file=sys.stderr)
        else:
            written.append(path)
    return written


def _put(path: Path, text: str) -> None:
    """Whole or not at all, and through nobody's symbolic link. Readable for the services' user, when root writes it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)


def say(args: argparse.Namespace) -> int:
    """What holds now. Whoever switched one service on may find all of them off."""
    for_all = _first(_switch.places(None, args.spool_dir))
    if args.service is not None:
        print(f"{args.service}: {_switch.state(args.service, args.spool_dir) or 'on'}")
        return 0
    print(f"all services: {for_all or 'on'}")
    for path in _of_single(args.spool_dir):
        print(f"{path.name.removesuffix(_switch.NAME)}: {_switch.read(str(path))}")
    return 0


def _first(paths: list[str]) -> Off | None:
    return next((off for path in paths if (off := _switch.read(path)) is not None), None)


def _of_single(spool_dir: str | None) -> list[Path]:
    """The files of services that are off by themselves."""
    folders = [Path(path).parent for path in _switch.places(None, spool_dir)]
    files = {path.name: path for each in reversed(folders) for path in each.glob(f"?*{_switch.NAME}") if _switch.read(str(path))}
    return [files[name] for name in sorted(files)]


def in_redis(args: argparse.Namespace, off: Off | None) -> int:
    """The same in a Redis; without `off`, only say what holds."""
    import redis

    key = f"{KEY}:{args.service}" if args.service else KEY
    try:
        client: Any = redis.Redis.from_url(args.redis, socket_timeout=5, socket_connect_timeout=5)
        if off is not None:
            client.set(key, off.encode())
        return say_redis(args, client)
    except (redis.RedisError, ValueError) as error:
        print(f"chegou-otel: {args.redis}: {error}", file=sys.stderr)
        return FAILED


def say_redis(args: argparse.Namespace, client: Any) -> int:
    """What holds in a Redis."""
    keys = [KEY, *([f"{KEY}:{args.service}"] if args.service else [])]
    found = [_switch.decode(value.decode("utf-8", "replace"), key) for key in keys if (value := client.get(key)) is not None]
    print(f"{args.service or 'all services'}: {found[0] if found else 'on'}")
    return 0
