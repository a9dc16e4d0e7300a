"""`chegou-otel find <id>`: the story of a correlation ID, a trace ID or a job ID, in the terminal."""

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chegou_otel.local.story import Source, Story

HELP = "print the story of a correlation ID, a trace ID or a job ID"

QUERY_URL = "CHEGOU_OTEL_QUERY_URL"
LOCAL = "http://127.0.0.1:4318"
JAEGER = "http://127.0.0.1:16686"

FOUND, NOT_FOUND, UNREACHABLE = 0, 1, 2
PAUSE_SECONDS = 0.25
LONGEST_ID = 256


def configure(parser: argparse.ArgumentParser) -> None:
    """What to look for, and where."""
    parser.add_argument("id", type=_identifier, help="a correlation ID (the X-Correlation-ID header), a trace ID or a job ID")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", type=_url, help=f"a running `chegou-otel dev` (default: ${QUERY_URL}, else {LOCAL}, else Jaeger)")
    where.add_argument("--jaeger", type=_url, metavar="URL", help=f"Jaeger's query address, such as {JAEGER}")
    where.add_argument("--data", type=Path, metavar="DIR", help="the data folder of a `chegou-otel dev`, running or not")
    parser.add_argument("--json", action="store_true", help="print JSON: verdict, notes, spans, logs")
    parser.add_argument("--wait", type=_seconds, default=0.0, metavar="SECONDS", help="wait so long for the story to be there and complete")


def _identifier(text: str) -> str:
    text = text.strip()
    if not 0 < len(text) <= LONGEST_ID or not text.isprintable():
        raise argparse.ArgumentTypeError(f"an ID has 1 to {LONGEST_ID} printable characters")
    return text


def _url(text: str) -> str:
    if not re.match(r"https?://[^/\s]", text):
        raise argparse.ArgumentTypeError(f"an address is http://host:port, not {text!r}")
    return text.rstrip("/")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("0 or more seconds")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Print the story; the exit code says whether there is one."""
    try:
        sources = _sources(args)
    except argparse.ArgumentTypeError as error:
        print(f"chegou-otel find: {QUERY_URL}: {error}", file=sys.stderr)
        return UNREACHABLE
    story, refusals = _wait(sources, args.id, args.wait)
    if story is not None:
        try:
            _print(story, as_json=args.json)
            sys.stdout.flush()
        except BrokenPipeError:  # `… | head` has read enough; what is left must not complain at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FOUND
    if len(refusals) == len(sources):
        print("\n".join(["chegou-otel find: nobody to ask:", *(f"  {each}" for each in refusals), _WHOM_TO_ASK]), file=sys.stderr)
        return UNREACHABLE
    print(f"chegou-otel find: nothing is known about {args.id}\n{_WHY_NOTHING}", file=sys.stderr)
    return NOT_FOUND


_WHOM_TO_ASK = f"""`chegou-otel dev` starts the local backend; --url or {QUERY_URL} names one that runs elsewhere, --jaeger a Jaeger."""
_WHY_NOTHING = """  - It may be on its way: telemetry leaves every second or so; --wait 10 waits for it.
  - Is the application sending here? OTEL_EXPORTER_OTLP_ENDPOINT is the address that `chegou-otel dev` prints.
  - Is it the whole ID? It is in the X-Correlation-ID header of the answer, and on every log line."""


def _sources(args: argparse.Namespace) -> "Sequence[Source]":
    from chegou_otel.local.sources import Detected, LocalBackend

    if args.data:
        from chegou_otel.local.store import Store

        return [Store(args.data.expanduser())]
    if args.jaeger:
        from chegou_otel.local.jaeger_source import Jaeger

        return [Jaeger(args.jaeger)]
    if url := args.url or os.environ.get(QUERY_URL, "").strip():
        return [Detected(_url(url))]
    return [LocalBackend(LOCAL), Detected(JAEGER)]


def _wait(sources: "Sequence[Source]", identifier: str, seconds: float) -> "tuple[Story | None, list[str]]":
    """Ask until the story is there and nothing of it is still to come, or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        story, refusals = _ask(sources, identifier)
        left = deadline - time.monotonic()
        if left <= 0 or (story and not story.pending):
            return story, refusals
        time.sleep(min(PAUSE_SECONDS, left))


def _ask(sources: "Sequence[Source]", identifier: str) -> "tuple[Story | None, list[str]]":
    """The first source that knows it; and who could not be asked."""
    from chegou_otel.local.sources import Unreachable
    from chegou_otel.local.story import build

    refusals: list[str] = []
    for source in sources:
        try:
            if story := build(source, identifier):
                return story, refusals
        except Unreachable as error:
            refusals.append(str(error))
    return None, refusals


def _print(story: "Story", *, as_json: bool) -> None:
    if as_json:
        from chegou_otel.local.report import report

        print(json.dumps(report(story), indent=2))
        return
    from chegou_otel.local.text import render

    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    with contextlib.suppress(AttributeError, ValueError):  # a terminal that lacks a sign shows a question mark
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    print(render(story, width=shutil.get_terminal_size((140, 24)).columns, coloured=coloured))
