"""Everything that can go wrong on the way to a receiver, one after the other, to a process that serves requests all the while.

Each fault meets the process twice: it passes, and then it is there when the process ends. What the next process of the service finds is
counted in. `./run bench -- faults` measures what the bounds of time here only catch when something waits.
"""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import time

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.delivery.faults import TALKS
from tests.delivery.receiver import PATIENCE, Answer
from tests.e2e.faulty import Service

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.once, pytest.mark.timeout(180)]

#: Of each phase. A fault lasts long enough for several tries.
REQUESTS, FAULT_SECONDS = 100, 2.0
#: Any wait for a receiver, a disk or a name would be longer. The slowest of a hundred, on a machine that has other things to do.
REQUEST_SECONDS = 0.25
EXIT_SECONDS, EXIT_SLACK = 2.0, 1.5
#: Faults that cost items: what the receiver refuses for good is refused.
REJECTING = {"400", "413", "partial success"}
#: Faults after which the receiver is left alone for as long as it said.
TOLD_TO_WAIT = {"503 for an hour"}


def serve_through(process, seconds=FAULT_SECONDS, requests=REQUESTS):
    """Requests spread over some time; the 99th percentile of what they took."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        times += process.go(max(1, requests // 20))
        time.sleep(seconds / 20)
    return sorted(times)[int(len(times) * 0.99)]


class Fault:
    """How it begins, how it ends."""

    def __init__(self, service, name):
        self.service, self.name = service, name

    def begin(self, process):
        self.service.socket.begin(self.name)

    def end(self, process):
        self.service.socket.heal()


class PartialSuccess(Fault):
    """The receiver keeps all but the first item of each request."""

    def begin(self, process):
        self.service.receiver.default = reject_first

    def end(self, process):
        self.service.receiver.default = Answer()


ANSWERS = {
    "ExportTraceServiceRequest": (("resource_spans", "scope_spans", "spans"), "rejected_spans", ExportTraceServiceResponse),
    "ExportLogsServiceRequest": (("resource_logs", "scope_logs", "log_records"), "rejected_log_records", ExportLogsServiceResponse),
    "ExportMetricsServiceRequest": (("resource_metrics", "scope_metrics", "metrics"), "rejected_data_points", ExportMetricsServiceResponse),
}


def reject_first(message):
    (levels, count, response) = ANSWERS[type(message).__name__]
    resources, scopes, items = levels
    del getattr(getattr(getattr(message, resources)[0], scopes)[0], items)[0]
    told = response()
    setattr(told.partial_success, count, 1)
    told.partial_success.error_message = "the first is one too many"
    return Answer(body=told.SerializeToString(), accept=True)


class Told(Fault):
    """The process breaks something of its own; the connection that it has would hide it."""

    orders = {
        "unknown name": ("dns unknown", "dns well"),
        "name server hangs": ("dns hangs", "dns well"),
        "clock jumps ahead": ("clock 86400", "clock 0"),
        "clock jumps back": ("clock -86400", "clock 0"),
        "clock jumps ahead and back": ("clock 86400", "clock -86400"),
    }

    def begin(self, process):
        process.tell(self.orders[self.name][0])
        self.service.socket.cut()

    def end(self, process):
        if process is not None:  # else it took what it broke along
            process.tell(self.orders[self.name][1])


class WrongName(Fault):
    """The certificate is good, and somebody else's."""

    def begin(self, process):
        self.service.socket.tls = self.service.wrong
        self.service.socket.cut()

    def end(self, process):
        self.service.socket.tls = self.service.right


MORE = {
    "partial success": PartialSuccess,
    "TLS with a wrong name": WrongName,
    **dict.fromkeys(Told.orders, Told),
}


@pytest.fixture
def serving(tmp_path, request):
    """Makes services, and ends what is left of them."""
    with contextlib.ExitStack() as stack:

        def make(**options):
            service = Service(tmp_path, **options)
            stack.callback(service.close)
            return service

        yield make


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """TLS contexts for 127.0.0.1 and for another name, and the file of both certificates."""
    place = tmp_path_factory.mktemp("keys")
    found = {}
    for name, alternative in (("right", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere.example")):
        key, certificate = place / f"{name}.key", place / f"{name}.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}"]
        subprocess.run(["openssl", "req", "-x509", *curve, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        found[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found[name].load_cert_chain(certificate, key)
    both = place / "both.pem"
    both.write_text((place / "right.pem").read_text() + (place / "wrong.pem").read_text())
    return found, both


def service_for(name, serving, contexts):
    if name == "TLS with a wrong name":
        (found, both) = contexts
        service = serving(tls=found["right"], OTEL_EXPORTER_OTLP_CERTIFICATE=str(both))
        service.right, service.wrong = found["right"], found["wrong"]
        return service
    service = serving()
    if MORE.get(name) is Told:
        service.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://collector.test:{service.socket.port}"
    return service


@pytest.mark.parametrize("name", [*TALKS, *MORE])
def test_a_fault_that_passes_and_a_fault_at_the_end(name, serving, contexts):
    """Requests go on, the books balance, the process ends in time, and all that nobody refused arrives."""
    service = service_for(name, serving, contexts)
    fault = MORE.get(name, Fault)(service, name)
    process = service.start()
    healthy = serve_through(process, 0.5)
    process.flush()

    fault.begin(process)
    broken = serve_through(process)
    fault.end(process)
    after = serve_through(process, 0.5)
    if name not in TOLD_TO_WAIT:
        process.flush()

    fault.begin(process)
    process.go(REQUESTS)
    seconds = process.end()
    fault.end(None)
    heir = service.start()
    heir.go(1)
    heir.flush()
    heir.end()

    found = service.check()
    report = f"{name}: p99 {healthy * 1e3:.1f} → {broken * 1e3:.1f} → {after * 1e3:.1f} ms, exit {seconds:.2f} s, {summary(found)}"
    print(f"\n{report}")
    assert max(broken, after) < REQUEST_SECONDS * PATIENCE, report
    assert seconds < EXIT_SECONDS + EXIT_SLACK * PATIENCE, report
    assert not any(each["dropped"] for each in found.values()), report
    rejected = {signal: each["rejected"] for signal, each in found.items()}
    assert all(rejected.values()) if name in REJECTING else not any(rejected.values()), report


def summary(found):
    return ", ".join(
        f"{signal} {each['created']} created {each['rejected']} rejected {each['ambiguous']} ambiguous" for signal, each in found.items()
    )
