"""`chegou-otel on`: undoes `chegou-otel off`."""

import argparse
import sys
from pathlib import Path

from chegou_otel import _switch
from chegou_otel._switch import KEY
from chegou_otel.cli import off

HELP = "switch telemetry on again, after `off`"


def configure(parser: argparse.ArgumentParser) -> None:
    """Which service, and where."""
    off.which(parser)


def run(args: argparse.Namespace) -> int:
    """Remove what `off` wrote, and say what holds now."""
    if args.redis:
        return _in_redis(args)
    code = 0
    for path in _switch.places(args.service, args.spool_dir):
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            print(f"{path}: {error.strerror or error}", file=sys.stderr)
            code = off.FAILED
    return off.say(args) or code


def _in_redis(args: argparse.Namespace) -> int:
    import redis

    try:
        client = redis.Redis.from_url(args.redis, socket_timeout=5, socket_connect_timeout=5)
        client.delete(f"{KEY}:{args.service}" if args.service else KEY)
        return off.say_redis(args, client)
    except (redis.RedisError, ValueError) as error:
        print(f"chegou-otel: {args.redis}: {error}", file=sys.stderr)
        return off.FAILED
