"""Sampling: the standard variables, rules, and what becomes of what is ruled out."""

from __future__ import annotations

import copy
import logging

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from chegou_otel import use_correlation_id
from chegou_otel.signals.encoding import Static
from chegou_otel.signals.rules import HEALTH, parse
from chegou_otel.signals.sampling import UNSAMPLED, Unsampled
from chegou_otel.testing import capture

#: Below a quarter, below a half, and above three quarters of all trace IDs.
LOW, MIDDLE, HIGH = (share << 56 | 0xABC for share in (0x10, 0x70, 0xE0))


def remote(trace_id, *, sampled):
    return NonRecordingSpan(SpanContext(trace_id, 7, True, TraceFlags(sampled)))


def request(path="/", method="GET"):
    return Static(method, SpanKind.SERVER.value, {"http.request.method": method, "url.path": path})


def job(function="shop.tasks.send", queue="default"):
    return Static(f"process {queue}", SpanKind.CONSUMER.value, {"rq.job.function": function, "messaging.destination.name": queue})


class Drawn:
    """Trace IDs that are known beforehand, for roots."""

    def __init__(self, ids):
        self._ids = iter(ids)

    def generate_trace_id(self):
        return next(self._ids)

    def generate_span_id(self):
        return 99

    def is_trace_id_random(self):
        return True


def begin(recorded, static, parent=None, *, drawn=None):
    tracer = copy.copy(recorded.telemetry.runtime.tracer("tests"))
    if drawn is not None:
        tracer.id_generator = Drawn([drawn])
    context = trace.set_span_in_context(parent) if parent is not None else None
    return tracer.begin(static, context=context)


def is_sampled(rules, static, trace_id, parent=None):
    """Whether a root, or a child of a remote parent with this trace ID, is sampled under the rules."""
    with capture(sampling=rules) as recorded:
        above = None if parent is None else remote(trace_id, sampled=parent)
        return bool(begin(recorded, static, above, drawn=trace_id).get_span_context().trace_flags.sampled)


# -- the standard variables --------------------------------------------------------------------------------------------

#: Of a root with a low and a high trace ID, of a child of a remote parent that is sampled (high) and of one that is not (low).
VARIABLES = {
    "always_on": ("", (1, 1, 1, 1)),
    "always_off": ("", (0, 0, 0, 0)),
    "traceidratio": ("0.5", (1, 0, 0, 1)),
    "parentbased_always_on": ("", (1, 1, 1, 0)),
    "parentbased_always_off": ("", (0, 0, 1, 0)),
    "parentbased_traceidratio": ("0.5", (1, 0, 1, 0)),
}


@pytest.mark.parametrize("name", VARIABLES)
def test_the_standard_samplers(monkeypatch, name):
    argument, expected = VARIABLES[name]
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    cases = [(LOW, None), (HIGH, None), (HIGH, True), (LOW, False)]

    for (trace_id, parent), wanted in zip(cases, expected, strict=True):
        with capture() as recorded:
            above = None if parent is None else remote(trace_id, sampled=parent)
            span = begin(recorded, request(), above, drawn=trace_id)
            with trace.use_span(span), trace.get_tracer("mine").start_as_current_span("below") as below:
                recorded.telemetry.runtime.tracer("tests").leaf(Static("leaf"), 1)
            span.end()
            assert len(recorded.spans) == 3 * wanted, (trace_id, parent)
            assert below.get_span_context().trace_id == span.get_span_context().trace_id
            assert int(below.get_span_context().trace_flags) & 1 == wanted


@pytest.mark.parametrize("name", ["nonsense", "parentbased_traceidratio"])
def test_a_wrong_variable_records_everything(monkeypatch, name):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "half")
    with capture() as recorded:
        begin(recorded, request(), drawn=HIGH).end()
        assert recorded.span_names() == ["GET"]


def test_a_ratio_does_not_slow_down_what_is_recorded(monkeypatch):
    """Children of what is recorded, and of what is not, are told without a question."""
    for name in ("parentbased_traceidratio", "traceidratio"):
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
        with capture() as recorded:
            for trace_id in (LOW, HIGH):
                span = begin(recorded, request(), drawn=trace_id)
                unasked = copy.copy(recorded.telemetry.runtime.tracer("tests"))
                unasked.sampler = None
                unasked.begin(Static("child"), context=trace.set_span_in_context(span))


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "static", "fits"),
    [
        ("GET /reports/*=0", request("/reports/2026/may/"), True),
        ("GET /reports/*=0", request("/reports/2026/", "POST"), False),
        ("GET /reports/*=0", request("/other/reports/1"), False),
        ("/reports/*=0", request("/reports/1", "POST"), True),
        ("*/reports/=0", request("/api/reports/"), True),
        ("GET /orders/<int:pk>/=0", request("/orders/12/"), True),
        ("GET /orders/<int:pk>/=0", request("/orders/twelve/"), False),
        ("GET /orders/<slug>/=0", request("/orders/twelve/"), True),
        ("GET /orders/<slug>/=0", request("/orders/twelve/lines/"), False),
        ("/files/<path:name>=0", request("/files/a/b/c"), True),
        ("/a.b/=0", request("/aXb/"), False),
        ("/q=1/=0", request("/q=1/"), True),
        ("/orders/*=0", job("/orders/1"), False),
        ("job:shop.tasks.*=0", job(), True),
        ("job:shop.*.send=0", job(), True),
        ("job:shop.tasks=0", job(), False),
        ("job:*=0", job(""), True),
        ("job:shop.tasks.*=0", request("/shop.tasks.send"), False),
        ("queue:low=0", job(queue="low"), True),
        ("queue:low=0", job(queue="lower"), False),
        ("queue:low*=0", job(queue="lower"), True),
        ("queue:very low=0", job(queue="very low"), True),
        ("command:clear*=0", Static("manage.py clearsessions", 0, {"chegou.command": "clearsessions"}), True),
        ("command:clear*=0", Static("mine"), False),
        ("*=0", Static("mine"), True),
        ("health=0", request("/healthz"), True),
        ("health=0", request("/healthz/", "HEAD"), True),
        ("health=0", request("/healthz/more"), False),
        ("health=0", request("/status/"), False),
    ],
)
def test_what_a_rule_is_about(rule, static, fits):
    assert is_sampled([rule], static, LOW) is not fits


@pytest.mark.parametrize("path", HEALTH)
def test_health_checks_are_known_with_and_without_a_slash(path):
    assert not is_sampled(["health=0"], request(path), LOW)
    assert not is_sampled(["health=0"], request(f"{path}/"), LOW)


def test_the_first_rule_that_fits_decides():
    rules = ["health=0", "/reports/*=1", "/reports/big/=0", "job:shop.*=0.5", "*=0.25"]
    found = [
        is_sampled(rules, static, trace_id)
        for static in (request("/ping"), request("/reports/big/"), job(), request("/"))
        for trace_id in (LOW, MIDDLE, HIGH)
    ]
    assert found == [False, False, False, True, True, True, True, True, False, True, False, False]


def test_where_no_rule_fits_the_variable_decides(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    assert [is_sampled(["health=0"], request(), trace_id) for trace_id in (LOW, MIDDLE, HIGH)] == [True, True, False]


def test_a_rule_that_names_something_stands_above_the_caller_and_a_star_below():
    """By the trace ID in every case, so that services with the same ratio agree."""
    cases = [(LOW, True), (LOW, False), (HIGH, True), (HIGH, False)]
    assert [is_sampled(["/=0.5"], request(), *case) for case in cases] == [True, True, False, False]
    assert [is_sampled(["*=0.5"], request(), *case) for case in cases] == [True, False, True, False]
    assert [is_sampled(["job:*=1"], job(), *case) for case in cases] == [True] * 4


def test_the_trace_id_decides_as_in_the_sdk():
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    sdk = TraceIdRatioBased(0.3)
    with capture(sampling=["*=0.3"]) as recorded:
        for number in range(500):
            trace_id = number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)
            found = begin(recorded, request(), drawn=trace_id).get_span_context().trace_flags.sampled
            assert found == (sdk.should_sample(None, trace_id, "").decision.is_sampled())


@pytest.mark.parametrize("base", ["always_on", "always_off", "traceidratio", "parentbased_always_on"])
def test_what_is_below_follows_whatever_the_variable_says(monkeypatch, base):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", base)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with capture(sampling=["/yes=1", "/no=0"]) as recorded:
        for path in ("/yes", "/no"):
            root = begin(recorded, request(path))
            with trace.use_span(root), trace.get_tracer("mine").start_as_current_span(path):
                recorded.telemetry.runtime.tracer("tests").leaf(Static(f"leaf {path}"), 1)
            root.end()
        assert recorded.span_names() == ["leaf /yes", "/yes", "GET"]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("GET /x", "is no rule"), ("=0.1", "is no rule"), ("/x=", "is no rule"), ("get /x=1", "is no rule"), ("jobs:x=1", "is no rule"),
        ("job:=1", "is no rule"), ("/x=2", "from 0 (never) to 1 (always)"), ("/x=nan", "from 0"), ("/x=often", "from 0"), ("/x=-1", "from 0"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_said(item, said):
    with pytest.raises(ValueError, match="GET /reports" if "no rule" in said else "ratio") as caught:
        parse(item)
    assert said in str(caught.value)
    assert repr(item) in str(caught.value)


def test_a_wrong_rule_of_the_environment_is_left_out_and_said(monkeypatch, caplog):
    monkeypatch.setenv("CHEGOU_OTEL_SAMPLING", "/x=0, whatever, *=1")
    with caplog.at_level(logging.WARNING, "chegou_otel"), capture() as recorded:
        assert recorded.telemetry.runtime.settings.sampling == ("/x=0", "*=1")
    assert "CHEGOU_OTEL_SAMPLING: 'whatever' is ignored" in caplog.text


# -- failures ----------------------------------------------------------------------------------------------------------


def test_what_failed_is_told_although_it_was_not_sampled():
    with capture(sampling=["errors=1", "*=0"]) as recorded:
        for path in ("/fine", "/wrong"):
            span = begin(recorded, request(path), drawn=HIGH)
            assert type(span) is Unsampled
            assert span.is_recording()
            assert not span.get_span_context().trace_flags.sampled
            with trace.use_span(span, set_status_on_exception=False), trace.get_tracer("mine").start_as_current_span("below"):
                trace.get_current_span(trace.set_span_in_context(span)).set_attribute("mine", 1)
            if path == "/wrong":
                span.fail(ValueError("no"))
            span.end()

        (told,) = recorded.spans
        assert told.attributes["url.path"] == "/wrong"
        assert (told.attributes[UNSAMPLED], told.attributes["mine"], told.attributes["error.type"]) == (True, 1, "ValueError")
        assert told.status == StatusCode.ERROR.name


def test_a_share_of_failures_goes_by_the_trace_id():
    with capture(sampling=["*=0.25", "errors=0.5"]) as recorded:
        for trace_id in (LOW, MIDDLE, HIGH):
            span = begin(recorded, request(), drawn=trace_id)
            span.fail(ValueError("no"))
            span.end()
        assert [UNSAMPLED in span.attributes for span in recorded.spans] == [False, True]


def test_never_is_never():
    with capture(sampling=["health=0", "errors=1"]) as recorded:
        span = begin(recorded, request("/ping"))
        span.fail(ValueError("no"))
        span.end()
        assert recorded.spans == []


# -- logs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [["*=0"], ["*=0", "errors=1"]])
def test_logs_of_what_is_not_sampled_keep_their_ids(rules):
    with capture(sampling=rules) as recorded, use_correlation_id("pedido-0001"):
        span = begin(recorded, request())
        with trace.use_span(span), trace.get_tracer("mine").start_as_current_span("below"):
            logging.getLogger("shop").warning("sold")
        (log,) = recorded.logs
        assert log.correlation_id == "pedido-0001"
        assert log.trace_id == f"{span.get_span_context().trace_id:032x}"
        assert log.span_id == f"{span.get_span_context().span_id:016x}"
