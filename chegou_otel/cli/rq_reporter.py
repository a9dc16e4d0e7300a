"""`chegou-otel rq-reporter`: the gauges of RQ from a process of its own, for deployments without web processes or that want it so.

While it runs, nobody else reports. `--json` prints what it reads instead of sending it.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import chegou_otel
from chegou_otel.integrations.rq import connection
from chegou_otel.integrations.rq.election import Rank
from chegou_otel.integrations.rq.reading import Reader, Value
from chegou_otel.integrations.rq.reporter import Post, Reporter

HELP = "report RQ's queues, workers and cron jobs from a process of its own"

_DEFAULT_URL = "redis://localhost:6379/0"
_FLUSH_SECONDS = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    url = os.environ.get("RQ_REDIS_URL", _DEFAULT_URL)
    parser.add_argument("--redis-url", default=url, help=f"Redis of the queues (default: RQ_REDIS_URL, else {_DEFAULT_URL})")
    parser.add_argument("--interval", type=float, help="seconds between two reports (default: OTEL_METRIC_EXPORT_INTERVAL, else 60)")
    parser.add_argument(
        "--service-name", help="that of the workers, so that the series are the same whoever reports (default: OTEL_SERVICE_NAME)"
    )
    parser.add_argument("--once", action="store_true", help="report once, whoever else does, and exit")
    parser.add_argument("--json", action="store_true", help="print each report as a line of JSON; send nothing")


def run(args: argparse.Namespace) -> int:
    """Report until a signal comes, or once."""
    import redis

    try:
        client = redis.Redis.from_url(args.redis_url)
    except ValueError as error:
        print(f"chegou-otel rq-reporter: {error}", file=sys.stderr)
        return 2
    try:
        if args.json:
            return _print(client, args)
        return _once(client, args) if args.once else _report(client, args)
    except redis.RedisError as error:
        print(f"chegou-otel rq-reporter: Redis at {connection.address(client)}: {error}", file=sys.stderr)
        return 1


def _print(client: Any, args: argparse.Namespace) -> int:
    reader, done = Reader(connection.like(client), connection.prefix()), _stopped()
    while True:
        print(json.dumps({"time": round(time.time(), 3), "gauges": as_json(reader.read())}), flush=True)
        if args.once or done.wait(args.interval or 60.0):
            return 0


def as_json(values: list[Value]) -> list[dict[str, Any]]:
    """Gauges as data."""
    return [{"name": value.gauge, "labels": dict(value.labels), "value": value.value} for value in values]


def _setup(args: argparse.Namespace) -> Any:
    telemetry = chegou_otel.setup(args.service_name, active="always", integrations=())
    if args.interval:
        telemetry.runtime.recorder.collect_interval = args.interval
    return telemetry


def _once(client: Any, args: argparse.Namespace) -> int:
    telemetry = _setup(args)
    found = Post(telemetry.runtime, client, Rank.ALONE).report()
    if not telemetry.flush(_FLUSH_SECONDS):
        print("chegou-otel rq-reporter: the collector did not take the report; it stays in the spool", file=sys.stderr)
        return 1
    print(f"{len(found)} gauges of {connection.address(client)} reported")
    return 0


def _report(client: Any, args: argparse.Namespace) -> int:
    telemetry, done = _setup(args), _stopped()
    reporter = Reporter(telemetry.runtime)
    telemetry.runtime.on_shutdown.append(reporter.stop)
    reporter.see(client, Rank.ALONE)
    done.wait()
    return 0


def _stopped() -> threading.Event:
    """Set by the signals that ask a process to leave."""
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    return done
