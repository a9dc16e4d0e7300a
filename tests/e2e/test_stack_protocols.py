"""Every protocol, with and without TLS on both sides, into a real OpenTelemetry Collector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from chegou_otel.delivery.endpoints import endpoints
from chegou_otel.delivery.frames import Kind
from chegou_otel.delivery.otlp import Scope
from chegou_otel.delivery.recorder import Recorder
from tests.delivery.items import RESOURCE, span
from tests.e2e import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.servers

CONFIG = """
extensions:
  health_check: {{endpoint: "127.0.0.1:{health}"}}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", max_recv_msg_size_mib: 1{tls}}}
      http: {{endpoint: "127.0.0.1:{http}"{tls}}}
exporters:
  file/traces: {{path: "{folder}/traces.jsonl", flush_interval: 50ms}}
  file/logs: {{path: "{folder}/logs.jsonl", flush_interval: 50ms}}
  file/metrics: {{path: "{folder}/metrics.jsonl", flush_interval: 50ms}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [file/traces]}}
    logs: {{receivers: [otlp], exporters: [file/logs]}}
    metrics: {{receivers: [otlp], exporters: [file/metrics]}}
"""
TLS = ', tls: {{cert_file: "{folder}/server.pem", key_file: "{folder}/server.key", client_ca_file: "{folder}/ca.pem"}}'


class Taken:
    """What a collector wrote to its files."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder = folder
        self.ports = ports

    def lines(self, signal: str) -> list[dict[str, Any]]:
        path = self.folder / f"{signal}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []

    def span_names(self) -> list[str]:
        return [
            each["name"]
            for line in self.lines("traces")
            for resource in line["resourceSpans"]
            for scope in resource["scopeSpans"]
            for each in scope["spans"]
        ]


@contextmanager
def collector(folder: Path, ports: dict[str, int], *, tls: bool = False) -> Iterator[Taken]:
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(folder=folder, tls=TLS.format(folder=folder) if tls else "", **ports))
    with servers._running("collector", ["--config", str(config)], {}, folder, f"http://127.0.0.1:{ports['health']}/"):
        yield Taken(folder, ports)


def free() -> dict[str, int]:
    return dict(zip(("grpc", "http", "health"), servers.free_ports(3), strict=True))


def issue(folder: Path) -> dict[str, str]:
    """Certificates of one CA for both sides, and the variables that name ours."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name, holder in (("server", "127.0.0.1"), ("client", "client.example")):
        made = ca.issue_cert(holder)
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        made.private_key_pem.write_to_path(folder / f"{name}.key")
    files = {"CERTIFICATE": "ca.pem", "CLIENT_CERTIFICATE": "client.pem", "CLIENT_KEY": "client.key"}
    return {f"OTEL_EXPORTER_OTLP_{name}": str(folder / file) for name, file in files.items()}


APPLICATION = """
    import logging
    import chegou_otel

    telemetry = chegou_otel.setup("protocols")
    with telemetry.runtime.tracer("t").start_as_current_span("across"):
        logging.getLogger("shop").warning("a line with %s", "ümläut")
    telemetry.runtime.metrics.histogram("shop.seconds", unit="s").series((("route", "/x/"),)).record(0.25)
    assert telemetry.flush(10), telemetry.runtime.recorder.ledger()
    for signal in ("traces", "logs", "metrics"):
        account = telemetry.runtime.recorder.ledger()[signal]
        assert account.delivered == account.created > 0, account
        assert not account.ambiguous, account
"""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "mutual TLS"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
def test_a_protocol(tmp_path: Path, protocol: str, tls: bool) -> None:
    """The three signals of an application that was set up by variables alone."""
    variables = issue(tmp_path) if tls else {}
    with collector(tmp_path, free(), tls=tls) as taken:
        port = taken.ports["grpc" if protocol == "grpc" else "http"]
        variables |= {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{'https' if tls else 'http'}://127.0.0.1:{port}",
            "CHEGOU_OTEL_SPOOL_DIR": str(tmp_path / "spool"),
        }
        env = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "CHEGOU_", "PYTEST", "DJANGO"))}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(APPLICATION)],
            env=env | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        servers.wait_until("all three", lambda: all(taken.lines(signal) for signal in ("traces", "logs", "metrics")))
        assert taken.span_names() == ["across"]
        told = json.dumps(taken.lines("logs") + taken.lines("metrics"), ensure_ascii=False)
        assert "a line with ümläut" in told
        assert "shop.seconds" in told
        (trace,) = {each["traceId"] for each in taken.lines("traces")[0]["resourceSpans"][0]["scopeSpans"][0]["spans"]}
        assert trace in told


def test_what_is_above_the_collector_s_limit_is_told_and_nothing_else_is_lost(tmp_path: Path) -> None:
    """One span of 1.5 MB among others, for a collector that takes 1 MiB by gRPC."""
    with collector(tmp_path, free()) as taken:
        ways = endpoints(f"http://127.0.0.1:{taken.ports['grpc']}", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
        recorder = Recorder(RESOURCE, service="shop", spool_dir=str(tmp_path / "spool"), endpoints=ways)
        scope = Scope.of("tests")
        recorder.append(Kind.SPAN, scope, span("first"))
        recorder.append(Kind.SPAN, scope, span("giant", 1_500_000))
        recorder.append(Kind.SPAN, scope, span("last"))
        assert recorder.flush(15)
        account = recorder.ledger()["traces"]
        assert (account.delivered, account.rejected) == (2, 1)
        servers.wait_until("both", lambda: sorted(taken.span_names()) == ["first", "last"])
        recorder.shutdown(1)


def test_a_collector_that_is_started_again(tmp_path: Path) -> None:
    """It says goodbye; the connection that was kept is left, and nothing is lost or sent twice."""
    ports = free()
    ways = endpoints(f"http://127.0.0.1:{ports['grpc']}", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    recorder = Recorder(RESOURCE, service="shop", spool_dir=str(tmp_path / "spool"), endpoints=ways)
    scope = Scope.of("tests")
    with collector(tmp_path, ports) as taken:
        recorder.append(Kind.SPAN, scope, span("before"))
        assert recorder.flush(10)
    recorder.append(Kind.SPAN, scope, span("meanwhile"))
    assert not recorder.flush(0.5)
    with collector(tmp_path, ports) as taken:
        recorder.append(Kind.SPAN, scope, span("after"))
        servers.wait_until("delivery", lambda: recorder.flush(1))
        servers.wait_until("all", lambda: {"meanwhile", "after"} <= set(taken.span_names()))
        assert recorder.ledger()["traces"].ambiguous == 0
        recorder.shutdown(1)
