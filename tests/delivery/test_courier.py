"""From a recorded frame to an accepted request, and what is said and counted when it is not accepted."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from chegou_otel.delivery.answers import Verdict
from chegou_otel.delivery.endpoints import Endpoint
from chegou_otel.delivery.frames import Kind, Priority, Signal
from chegou_otel.delivery.otlp import Scope
from chegou_otel.delivery.transport import Transport
from tests.delivery.items import log, metric, span
from tests.delivery.receiver import HANG, RESET, Answer, partial, raw_server, wait_for
from tests.redis_server import free_port


def balanced(account):
    return account.created == account.delivered + account.rejected + sum(account.dropped.values()) + account.held


def test_all_three_signals_arrive(make, receiver, scope):
    """Spans, logs and metrics reach their own paths with resource and scope."""
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("GET /"))
    recorder.append(Kind.LOG, Scope.of("other"), log("hello"), Priority.INFO)
    recorder.append(Kind.METRIC, scope, metric("requests"), Priority.HIGH)

    assert recorder.flush(5)

    (found, name, resource) = receiver.spans[0]
    assert (found.name, name, resource.attributes[0].value.string_value) == ("GET /", "tests.delivery", "shop")
    assert (receiver.logs[0][0].body.string_value, receiver.logs[0][1]) == ("hello", "other")
    assert receiver.metrics[0][0].name == "requests"
    assert {path for path, _, _ in receiver.requests} == {"/v1/traces", "/v1/logs", "/v1/metrics"}
    assert receiver.connections == 1


def test_arrives_without_a_flush(make, receiver, scope):
    """The courier looks by itself."""
    make(receiver.url).append(Kind.SPAN, scope, span("GET /"))

    wait_for(lambda: receiver.names() == ["GET /"], 5)


def test_keeps_order_over_many_segments(make, receiver, scope):
    """Everything arrives once, in the order of recording, over more than one segment."""
    recorder = make(receiver.url, segment_bytes=64 * 1024)
    names = [f"span {number}" for number in range(2000)]
    for name in names:
        assert recorder.append(Kind.SPAN, scope, span(name, 100))

    assert recorder.flush(10)
    assert receiver.names() == names
    assert recorder.ledger()["traces"].delivered == 2000


def test_nothing_listens(make, scope, caplog):
    """One line names the address and the way to start a receiver; then it is quiet, and nothing is lost."""
    port = free_port()
    recorder = make(f"http://127.0.0.1:{port}")
    with caplog.at_level(logging.INFO, "chegou_otel"):
        for number in range(3):
            recorder.append(Kind.SPAN, scope, span(f"span {number}"))
            assert not recorder.flush(2)

    assert [record.getMessage() for record in caplog.records] == [
        f"nothing listens on http://127.0.0.1:{port}/v1/traces; telemetry is kept (64 MiB at most); start one with: chegou-otel dev",
    ]
    assert recorder.ledger()["traces"].held == 3


def test_recovers(make, receiver, scope, caplog):
    """What was held while the receiver was down arrives when it is back, and one line says so."""
    receiver.default = Answer(503, accept=False)
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("held"))
    assert not recorder.flush(0.5)
    receiver.default = Answer()

    assert recorder.flush(3)
    assert receiver.names() == ["held"]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{receiver.url}/v1/traces does not take telemetry: HTTP 503 Service Unavailable; it is kept (64 MiB at most)",
        f"telemetry is delivered again to {receiver.url}/v1/traces",
    ]
    assert recorder.ledger()["traces"].ambiguous == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(302, headers={"location": "http://127.0.0.1:9/"}),
        Answer(200, b"<html>Log in</html>", "text/html", accept=False),
        Answer(200, b"\xff\xff\xff", accept=False),
        Answer(401),
        Answer(404),
        Answer(500),
        Answer(503),
    ],
    ids=lambda each: f"{each.status}-{each.content_type}",
)
def test_only_an_otlp_answer_is_success(make, receiver, scope, answer):
    """Redirects, login pages, garbage and errors deliver nothing; it is kept and arrives later."""
    recorder = make(receiver.url)
    receiver.default = answer
    recorder.append(Kind.SPAN, scope, span("kept"))
    assert not recorder.flush(0.4)
    assert recorder.ledger()["traces"].held == 1
    receiver.default = Answer()

    assert recorder.flush(3)
    assert receiver.names() == ["kept"]


@pytest.mark.parametrize("answer", [
    Answer(200, b"", ""), Answer(204, b"", "text/plain", accept=True), Answer(200, b"{}", "application/json"),
    Answer(200, b'{"partialSuccess":{}}', "application/json; charset=utf-8"),
], ids=lambda each: f"{each.status}-{each.content_type}-{each.body}")  # fmt: skip
def test_answers_that_count_as_success(make, receiver, scope, answer):
    recorder = make(receiver.url)
    receiver.default = answer
    recorder.append(Kind.SPAN, scope, span("kept"))

    assert recorder.flush(2)
    assert recorder.ledger()["traces"].delivered == 1


def test_partial_success_is_counted(make, receiver, scope):
    """What the receiver says it rejected is not counted as delivered."""
    receiver.plan = [partial(2, "too old")]
    recorder = make(receiver.url)
    recorder._become = True  # the courier does not begin before all are there
    for number in range(5):
        recorder.append(Kind.SPAN, scope, span(f"span {number}"))
    recorder._become = False
    recorder.start()

    assert recorder.flush(2)
    account = recorder.ledger()["traces"]
    assert (account.created, account.delivered, account.rejected) == (5, 3, 2)


def test_retry_after_is_honoured(make, receiver, scope):
    """Nothing is sent before the time that the receiver asked for, not even by a flush."""
    receiver.plan = [Answer(429, headers={"retry-after": "1"})]
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("later"))
    wait_for(lambda: receiver.requests)
    begin = time.monotonic()
    assert not recorder.flush(0.3)
    assert not recorder.flush(0.3)
    assert len(receiver.requests) == 1

    wait_for(lambda: receiver.names() == ["later"], 20)
    assert time.monotonic() - begin >= 0.9
    assert recorder.ledger()["traces"].ambiguous == 0


def test_bad_request_costs_only_the_culprit(make, receiver, scope):
    """A span that the receiver will never take is found by halving; all the others arrive."""

    def picky(message):
        names = [one.name for r in message.resource_spans for s in r.scope_spans for one in s.spans]
        return Answer(400) if "poison" in names else Answer()

    receiver.default = picky
    recorder = make(receiver.url)
    names = [f"span {number}" for number in range(100)]
    for name in [*names[:37], "poison", *names[37:]]:
        recorder.append(Kind.SPAN, scope, span(name))

    assert recorder.flush(5)
    assert receiver.names() == names
    account = recorder.ledger()["traces"]
    assert (account.delivered, account.rejected, account.held) == (100, 1, 0)


def test_a_receiver_that_rejects_everything_is_not_asked_for_each_item(make, receiver, scope):
    recorded = threading.Event()  # until then one batch at most is under way, so the others are full ones

    def refuse(_message):
        recorded.wait(10)
        return Answer(400)

    receiver.default = refuse
    recorder = make(receiver.url)
    for number in range(3000):
        recorder.append(Kind.SPAN, scope, span(f"span {number}"))
    recorded.set()

    assert recorder.flush(5)
    assert recorder.ledger()["traces"].rejected == 3000
    assert len(receiver.requests) < 40


def test_too_large_is_split(make, receiver, scope):
    """413 halves the batch until it fits."""
    receiver.default = lambda message: Answer(413) if message.ByteSize() > 20_000 else Answer()
    recorder = make(receiver.url)
    names = [f"span {number}" for number in range(200)]
    for name in names:
        recorder.append(Kind.SPAN, scope, span(name, 400))

    assert recorder.flush(5)
    assert receiver.names() == names
    assert recorder.ledger()["traces"].rejected == 0


def test_reset_after_the_body_is_ambiguous(make, receiver, scope):
    """The answer was lost: the batch is sent again, and counted as one that may be there twice."""
    receiver.plan = [RESET]
    recorder = make(receiver.url)
    for number in range(4):
        recorder.append(Kind.SPAN, scope, span(f"span {number}"))
    recorder.flush(3)
    recorder.append(Kind.SPAN, scope, span("certain"))
    wait_for(lambda: recorder.flush(1))

    account = recorder.ledger()["traces"]
    counts = receiver.counts()
    assert counts.pop("certain") == 1
    # The courier may have been off with the first span alone.
    assert account.ambiguous == sum(count - 1 for count in counts.values()) > 0
    assert account.delivered == 5


def refuse(connection):
    connection.close()


def black_hole(connection):
    time.sleep(20)


def swallow(connection):
    while connection.recv(65536):
        pass


def drip_headers(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        connection.sendall(b"x-%d: y\r\n" % number)
        time.sleep(0.1)


def drip_body(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 500\r\n\r\n")
    for _ in range(200):
        connection.sendall(b"x")
        time.sleep(0.1)


def garbage(connection):
    connection.recv(65536)
    connection.sendall(os.urandom(5000))


@pytest.mark.parametrize("talk", [refuse, black_hole, swallow, drip_headers, drip_body, garbage])
def test_flush_and_shutdown_keep_their_promise(make, scope, talk):
    """By wall clock, whatever the other side does, with all three signals waiting; and everything is kept."""
    with raw_server(talk) as url:
        recorder = make(url)
        for number in range(2000):
            recorder.append(Kind.SPAN, scope, span(f"span {number}"))
            recorder.append(Kind.LOG, scope, log("x"))
        recorder.append(Kind.METRIC, scope, metric("x"))
        for call in (recorder.flush, recorder.shutdown):
            begin = time.monotonic()
            assert not call(1.0)
            assert time.monotonic() - begin < 1.5
        assert balanced(recorder.ledger()["traces"])


def test_a_hanging_name_look_up_keeps_the_promise(make, scope, monkeypatch):
    """``getaddrinfo`` has no deadline of its own; its thread is left alone."""
    import socket

    real = socket.getaddrinfo

    def stuck(host, *rest, **options):
        if host == b"stuck.example" and not options.get("flags"):
            time.sleep(5)
        return real(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    recorder = make("http://stuck.example:4318")
    recorder.append(Kind.SPAN, scope, span("held"))
    begin = time.monotonic()

    assert not recorder.flush(2)
    assert time.monotonic() - begin < 2.5


def test_one_dead_endpoint_does_not_hold_up_another(make, receiver, scope):
    """Each signal has its own cursor and its own circuit."""
    ways = {signal: Endpoint(f"{receiver.url}/v1/{signal.name.lower()}") for signal in Signal}
    ways[Signal.TRACES] = Endpoint(f"http://127.0.0.1:{free_port()}/v1/traces")
    recorder = make(endpoints=ways)
    for number in range(100):
        recorder.append(Kind.SPAN, scope, span("x"))
        recorder.append(Kind.LOG, scope, log(str(number)))

    assert not recorder.flush(3)
    assert [found.body.string_value for found, _, _ in receiver.logs] == [str(number) for number in range(100)]
    ledger = recorder.ledger()
    assert (ledger["traces"].held, ledger["logs"].held) == (100, 0)


def test_a_hanging_endpoint_leaves_time_for_the_others(make, receiver, scope):
    """A flush shares its time out: one that hangs does not take it all."""
    with raw_server(black_hole) as url:
        ways = {signal: Endpoint(f"{receiver.url}/v1/{signal.name.lower()}") for signal in Signal}
        ways[Signal.TRACES] = Endpoint(f"{url}/v1/traces")
        recorder = make(endpoints=ways)
        recorder._become = True  # nothing is sent before the flush
        recorder.append(Kind.SPAN, scope, span("x"))
        recorder.append(Kind.LOG, scope, log("x"))
        recorder._become = False
        recorder.start()

        assert not recorder.flush(1.5)
        assert len(receiver.logs) == 1


@pytest.mark.parametrize("talk", [drip_headers, drip_body])
def test_drip_fed_answers_gain_no_time(talk):
    """The deadline is that of the whole request, not of each byte."""
    with raw_server(talk) as url:
        begin = time.monotonic()
        answer = Transport(Endpoint(f"{url}/v1/traces"), {}).send(b"", begin + 0.5)
        assert answer.verdict is Verdict.AMBIGUOUS
        assert time.monotonic() - begin < 1


def test_a_dead_receiver_costs_nearly_nothing(make, scope):
    """The circuit opens: after the first tries, the courier only waits."""
    hits = []

    def count(connection):
        hits.append(time.monotonic())

    with raw_server(count) as url:
        recorder = make(url)
        for _ in range(20):
            recorder.append(Kind.SPAN, scope, span("x"))
            recorder.courier.wake()
            time.sleep(0.1)
    assert 1 <= len(hits) <= 3


def test_collectors_run_before_a_flush(make, receiver, scope):
    """Metrics are read when somebody flushes, even if nothing was recorded before."""
    recorder = make(receiver.url)
    recorder.collectors.append(lambda: recorder.append(Kind.METRIC, scope, metric("requests"), Priority.HIGH))

    assert recorder.flush(3)
    assert [found.name for found, _, _ in receiver.metrics] == ["requests"]


def test_collectors_run_by_themselves(make, receiver, scope):
    recorder = make(receiver.url)
    recorder.collect_interval = 0.1
    recorder.collectors.append(lambda: recorder.append(Kind.METRIC, scope, metric("requests"), Priority.HIGH))
    recorder.start()

    wait_for(lambda: len(receiver.metrics) >= 2, 10)


def test_hanging_request_is_over_at_the_endpoints_timeout(make, receiver, scope):
    """A receiver that takes the request and never answers: the time-out of the endpoint ends it, and it is sent again."""
    receiver.plan = [HANG]
    ways = {signal: Endpoint(f"{receiver.url}/v1/{signal.name.lower()}", timeout=0.3) for signal in Signal}
    recorder = make(endpoints=ways)
    recorder.append(Kind.SPAN, scope, span("again"))

    wait_for(lambda: receiver.names() == ["again"], 10)
    wait_for(lambda: recorder.ledger()["traces"].delivered == 1)
    assert recorder.ledger()["traces"].ambiguous == 1


def test_headers_compression_and_keep_alive(make, receiver, scope):
    ways = {signal: Endpoint(f"{receiver.url}/v1/{signal.name.lower()}", {"authorization": "Bearer x"}) for signal in Signal}
    recorder = make(endpoints=ways)
    for _ in range(3):
        recorder.append(Kind.SPAN, scope, span("x", 2000))
        assert recorder.flush(3)

    for _, headers, _ in receiver.requests:
        found = {key.lower(): value for key, value in headers.items()}
        assert found["authorization"] == "Bearer x"
        assert found["content-encoding"] == "gzip"
        assert found["content-type"] == "application/x-protobuf"
    assert (len(receiver.requests), receiver.connections) == (3, 1)


def test_the_courier_imports_nothing(receiver, tmp_path):
    """A fork in the middle of an import on the courier's thread would leave the child with a locked module."""
    code = """if True:
        import os, sys
        sys.path.insert(0, os.getcwd())
        from chegou_otel.delivery.endpoints import endpoints
        from chegou_otel.delivery.frames import Kind
        from chegou_otel.delivery.otlp import Scope
        from chegou_otel.delivery.recorder import Recorder
        recorder = Recorder(b"", spool_dir=sys.argv[2], endpoints=endpoints(sys.argv[1], {}))
        before = set(sys.modules)
        recorder.append(Kind.SPAN, Scope.of("x"), b"\\x12\\x00")
        recorder.flush(5)
        print(sorted(set(sys.modules) - before))
    """
    answers = (
        Answer(),
        Answer(400),
        Answer(200, b"{}", "application/json"),
        Answer(503, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    )
    for answer in answers:
        receiver.default = answer
        run = subprocess.run([sys.executable, "-c", code, receiver.url, tmp_path], capture_output=True, text=True, check=True)
        assert run.stdout == "[]\n"
