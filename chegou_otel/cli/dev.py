"""`chegou-otel dev`: the local backend. OTLP in, SQLite, and the story of an ID in the browser."""

import argparse
import json
import logging
import signal
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chegou_otel.local.backend import Backend, Options

HELP = "receive traces, metrics and logs on this machine, and show the story of an ID"

CANNOT_START = 1
HTTP_PORT = 4318
GRPC_PORT = 4317
KEEP_DAYS = 7
ENDINGS = (signal.SIGINT, signal.SIGTERM)


def configure(parser: argparse.ArgumentParser) -> None:
    """Where to listen, what to keep."""
    parser.add_argument(
        "--http-port", "--port", type=_port, default=HTTP_PORT, help="OTLP/HTTP, and the page (default: %(default)s; 0: any)"
    )
    parser.add_argument("--grpc-port", type=_port, default=None, help=f"OTLP/gRPC (default: {GRPC_PORT} if it is free; 0: any)")
    parser.add_argument("--no-grpc", action="store_true", help="no OTLP/gRPC")
    parser.add_argument("--ui-port", type=_port, default=None, help="the page on a port of its own (default: the HTTP port)")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine only; there is no password)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the day files (default: ~/.local/share/chegou-otel)")
    parser.add_argument("--retention-days", type=_days, default=KEEP_DAYS, help="days to keep, today included (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="say where it listens as one line of JSON")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 1 << 16:
        raise argparse.ArgumentTypeError("a port is between 0 and 65535")
    return port


def _days(text: str) -> int:
    days = int(text)
    if days < 1:
        raise argparse.ArgumentTypeError("at least 1: today")
    return days


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from chegou_otel.local.backend import Backend, Options
    from chegou_otel.local.days import default_folder

    logging.basicConfig(format="chegou-otel dev: %(message)s", level=logging.WARNING, stream=sys.stderr)
    # Blocked in every thread that is started from here on, so that the kernel can give them to nobody but sigwait().
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    folder = (args.data or default_folder()).expanduser().absolute()
    backend = Backend(Options(folder, args.host, args.http_port, args.ui_port, args.retention_days))
    try:
        backend.start()
        without = _start_grpc(backend, args)
    except (OSError, sqlite3.Error) as error:
        backend.stop()
        print(f"chegou-otel dev: {_advice(error, backend.options)}", file=sys.stderr)
        return CANNOT_START
    _say(backend, without, as_json=args.json)
    signal.sigwait(ENDINGS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)  # whoever asks twice does not want to wait
    backend.stop()
    return 0


def _start_grpc(backend: "Backend", args: argparse.Namespace) -> str:
    """Start it, or say in words why it is off. A port that was asked for and is taken is an error."""
    if args.no_grpc:
        return "off: --no-grpc"
    try:
        backend.start_grpc(GRPC_PORT if args.grpc_port is None else args.grpc_port)
    except ModuleNotFoundError as error:
        if error.name != "grpc":
            raise
        return "off: it needs grpcio: pip install 'chegou-otel[dev]'"
    except OSError:
        if args.grpc_port is not None:
            raise
        return f"off: port {GRPC_PORT} is taken; --grpc-port gives another"
    return ""


def _advice(error: OSError | sqlite3.Error, options: "Options") -> str:
    if isinstance(error, sqlite3.Error):
        return f"the data in {options.folder} cannot be used ({error}); --data gives another folder"
    if error.filename:
        return f"{error.filename}: {error.strerror}; --data gives another folder"
    return (
        f"cannot listen on {options.host}: {error.strerror or error}. Is it running already?\n"
        f"Other ports: --http-port and --grpc-port, 0 for free ones"
    )


def _say(backend: "Backend", without_grpc: str, *, as_json: bool) -> None:
    addresses = _addresses(backend)
    if as_json:
        print(json.dumps(addresses), flush=True)
        if without_grpc:
            print(f"chegou-otel dev: OTLP/gRPC is {without_grpc}", file=sys.stderr, flush=True)
        return
    print(
        f"chegou-otel dev\n"
        f"  OTLP/HTTP  {addresses['endpoint']}\n"
        f"  OTLP/gRPC  {addresses['grpc'] or without_grpc}\n"
        f"  stories    {addresses['url']}\n"
        f"  data       {addresses['data']}  ({backend.options.keep_days} days)\n"
        f"Ctrl-C ends it.",
        flush=True,
    )


def _addresses(backend: "Backend") -> Mapping[str, object]:
    assert backend.http and backend.ui  # noqa: S101, PT018 - it has started
    return {
        "url": backend.ui.url,
        "endpoint": backend.http.url,
        "grpc": backend.grpc.address if backend.grpc else None,
        "http_port": backend.http.port,
        "grpc_port": backend.grpc.port if backend.grpc else None,
        "ui_port": backend.ui.port,
        "data": str(backend.options.folder),
    }
