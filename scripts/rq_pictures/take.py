"""The pictures of docs/rq-in-jaeger.md, taken from a real Jaeger: `python scripts/rq_pictures/take.py --ui <folder>`.

Needed: Jaeger (`.ci/servers build jaeger`), a build of its user interface (the Go module has a placeholder only), Redis, Chromium with its
chromedriver. Everything runs on free ports of this machine and is gone at the end.
"""

import argparse
import base64
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis
import requests

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.redis_server import free_port, running  # noqa: E402 - from this checkout, wherever the script is run

SECONDS = 30
WIDTH, HEIGHT = 1000, 1600


class Picture(NamedTuple):
    """What to look for in Jaeger, and what to open before the picture is taken."""

    function: str
    spans: int
    opened: str = ""  # the operation whose details are shown


PICTURES = {
    "retry": Picture("jobs.confirm_order", 6),
    "scheduled": Picture("jobs.send_reminder", 2, "process default"),
    "dependents": Picture("jobs.ship", 7),
    "callback": Picture("jobs.charge", 5),
    "killed": Picture("jobs.render_catalogue", 4, "process default"),
    "cron": Picture("jobs.tidy_baskets", 3),
}


def eventually(what: str, look: Any) -> Any:
    """The first answer that is one, waited for."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(requests.RequestException):
            if found := look():
                return found
        time.sleep(0.2)
    raise TimeoutError(what)


@contextlib.contextmanager
def process(*command: str, **variables: str) -> Iterator[None]:
    """A program for the length of a block."""
    with tempfile.TemporaryFile() as said:
        started = subprocess.Popen(command, cwd=HERE, env={**os.environ, **variables}, stdout=said, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            started.terminate()
            started.wait()


@contextlib.contextmanager
def jaeger(folder: Path, ui: Path) -> Iterator[tuple[str, str]]:
    """Jaeger as deployed, with its page and a receiver that needs no collector; yields the addresses of both."""
    config = (ROOT / "deploy" / "jaeger" / "config.yaml").read_text()
    page, otlp, health, metrics, grpc, query = (free_port() for _ in range(6))
    config = config.replace("    enable_tracing: false", f"    ui:\n      assets_path: {ui}\n    enable_tracing: false")
    config = config.replace("    protocols:\n", f"    protocols:\n      http:\n        endpoint: 127.0.0.1:{otlp}\n")
    (folder / "jaeger.yaml").write_text(config)
    binary = subprocess.run([ROOT / ".ci" / "servers", "path", "jaeger"], capture_output=True, text=True, check=True).stdout.strip()
    ports = {
        "JAEGER_OTLP_LISTEN": f"127.0.0.1:{grpc}", "JAEGER_QUERY_HTTP": f"127.0.0.1:{page}", "JAEGER_QUERY_GRPC": f"127.0.0.1:{query}",
        "JAEGER_HEALTH": f"127.0.0.1:{health}", "JAEGER_METRICS_PORT": str(metrics), "JAEGER_DATA": str(folder / "store"),
    }  # fmt: skip
    with process(binary, "--config", str(folder / "jaeger.yaml"), **ports):
        eventually("Jaeger", lambda: requests.get(f"http://127.0.0.1:{health}/status", timeout=2).ok)
        yield f"http://127.0.0.1:{page}", f"http://127.0.0.1:{otlp}"


class Browser:
    """Chromium by the WebDriver protocol."""

    def __init__(self, driver: str) -> None:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"]
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}}
        answer = eventually("chromedriver", lambda: requests.post(f"{driver}/session", json=wanted, timeout=SECONDS))
        self.session = f"{driver}/session/{answer.json()['value']['sessionId']}"

    def call(self, path: str, **body: Any) -> Any:
        return requests.post(f"{self.session}/{path}", json=body, timeout=SECONDS).json()["value"]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("execute/sync", script=script, args=list(arguments))

    def take(self, url: str, picture: Picture) -> bytes:
        """The page, once every span of the trace is on it."""
        self.call("window/rect", width=WIDTH, height=HEIGHT)
        self.call("url", url=url)
        rows = "return document.querySelectorAll('.span-row').length"
        eventually(f"{picture.spans} rows, not {self.run(rows)}", lambda: self.run(rows) >= picture.spans)
        if picture.opened:
            self.run(OPEN, picture.opened)
            eventually("details", lambda: self.run("return document.querySelector('.detail-row') !== null"))
            self.run(OPEN_PARTS)
        time.sleep(1)  # its animations
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": self.run(BOTTOM), "scale": 0.75 if picture.opened else 1}
        taken = self.call("goog/cdp/execute", cmd="Page.captureScreenshot", params={"clip": clip})
        return smaller(base64.b64decode(taken["data"]))

    def close(self) -> None:
        requests.delete(self.session, timeout=SECONDS)


#: Opens the details of a span; its attributes and references; where the last row ends.
OPEN = """
const row = [...document.querySelectorAll('.span-row')].find(each => each.textContent.includes(arguments[0]));
row.querySelector('.span-view, .span-name').click();
"""
OPEN_PARTS = """
const parts = [...document.querySelectorAll('.detail-row [role=switch]')];
parts.filter(each => /^(Tags|References)/.test(each.textContent.trim())).forEach(each => each.click());
document.head.insertAdjacentHTML('beforeend', '<style>.KeyValueTable { max-height: none !important }</style>');
"""
BOTTOM = """
const rows = [...document.querySelectorAll('.span-row, .detail-row')];
return Math.ceil(Math.max(...rows.map(each => each.getBoundingClientRect().bottom))) + 2;
"""


def smaller(png: bytes) -> bytes:
    """The same picture: Chromium packs for speed."""
    at, kept, packed = 8, [png[:8]], b""
    while at < len(png):
        size = int.from_bytes(png[at : at + 4]) + 12
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + size - 4]
        elif png[at + 4 : at + 8] == b"IEND":
            body = b"IDAT" + zlib.compress(zlib.decompress(packed), 9)
            kept += [(len(body) - 4).to_bytes(4), body, zlib.crc32(body).to_bytes(4), png[at:]]
        else:
            kept.append(png[at : at + size])
        at += size
    return b"".join(kept)


def trace_of(page: str, picture: Picture) -> str:
    """The ID of the newest trace in which the function ran, once all its spans are there."""

    def look() -> str | None:
        query = {"service": "shop", "tags": f'{{"rq.job.function":"{picture.function}"}}', "limit": "20", "lookback": "1h"}
        found = requests.get(f"{page}/api/traces", params=query, timeout=5).json().get("data") or []
        # A scheduled run has a trace of its own: the one with the consumer.
        whole = [each for each in found if len(each["spans"]) >= picture.spans and any(is_run(span) for span in each["spans"])]
        return max(whole, key=lambda each: each["spans"][0]["startTime"])["traceID"] if whole else None

    found: str = eventually(f"the trace of {picture.function}", look)
    return found


def is_run(span: dict[str, Any]) -> bool:
    return str(span["operationName"]).startswith("process ")


def main() -> None:
    """Take them all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ui", type=Path, required=True, help="folder of a built Jaeger UI (packages/jaeger-ui/build)")
    parser.add_argument("pictures", nargs="*", default=[], help=f"of {', '.join(PICTURES)}")
    options = parser.parse_args()
    driver = free_port()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = str(stack.enter_context(running(folder)))
        page, otlp = stack.enter_context(jaeger(folder, options.ui.resolve()))
        ours = {
            "OTEL_SERVICE_NAME": "shop", "OTEL_EXPORTER_OTLP_ENDPOINT": otlp, "CHEGOU_OTEL_SPOOL_DIR": str(folder / "spool"),
            "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "PYTHONPATH": f"{ROOT}:{HERE}",
        }  # fmt: skip
        run = (sys.executable, "-m", "chegou_otel", "run", "--")
        rq = str(Path(sys.executable).with_name("rq"))
        redis_url = f"redis://127.0.0.1:{port}"
        stack.enter_context(process(*run, rq, "worker", "--with-scheduler", "--url", redis_url, **ours))
        stack.enter_context(process("chromedriver", f"--port={driver}"))
        browser = Browser(f"http://127.0.0.1:{driver}")
        stack.callback(browser.close)
        known = redis.Redis(port=int(port))
        eventually("the worker", lambda: known.smembers("rq:workers"))
        for name in options.pictures or PICTURES:
            if name == "cron":
                stack.enter_context(process(*run, rq, "cron", "cron.py", "--url", redis_url, **ours))
            else:
                subprocess.run([*run, sys.executable, "jobs.py", name, port], cwd=HERE, env={**os.environ, **ours}, check=True)
            found = trace_of(page, PICTURES[name])
            taken = browser.take(f"{page}/trace/{found}?uiEmbed=v0&uiTimelineHideMinimap=1", PICTURES[name])
            (ROOT / "docs" / "rq-in-jaeger" / f"{name}.png").write_bytes(taken)
            print(f"{name}: {len(taken) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
