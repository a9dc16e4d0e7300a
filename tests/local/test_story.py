"""The story of an ID: what belongs to it, in which order, with which verdict and which gaps."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chegou_otel.local.records import Event, Link, Log, Records, Span, from_json, to_json
from chegou_otel.local.report import report
from chegou_otel.local.story import Line, Row, Story, build
from chegou_otel.local.timeline import Axis
from chegou_otel.local.words import duration, headline, one_line, title

MS = 1_000_000
BEGIN = 1_790_000_000_000 * MS
TRACE = "a" * 32
numbers = itertools.count(1)


def span(
    name="work", kind="INTERNAL", at=0.0, took=1.0, parent="", trace=TRACE, failed=False, correlation="c-1", service="hub", **values
) -> Span:
    given = {key.replace("__", "."): value for key, value in values.items()}
    return Span(
        trace_id=trace,
        span_id=f"{next(numbers):016x}",
        parent_id=getattr(parent, "span_id", parent),
        name=name,
        kind=kind,
        start=BEGIN + int(at * MS),
        end=BEGIN + int((at + took) * MS),
        status="ERROR" if failed else "UNSET",
        attributes={**({"correlation_id": correlation} if correlation else {}), **given},
        resource={"service.name": service},
    )


def job_run(producer: Span, attempt: int, at: float, status: str | None, *, most: int = 3, job="j-1", took=10.0, **values) -> Span:
    told = {"messaging__message__id": job, "rq__job__function": "hub.jobs.sync", "rq__job__attempt": attempt, "rq__job__max_attempts": most}
    if status:
        told["rq__job__status"] = status
    return span("process default", "CONSUMER", at, took, producer, failed=status != "finished", **told, **values)


def log(body="said", at=0.0, of: Span | None = None, severity=9, correlation="c-1", trace=TRACE) -> Log:
    found = {"correlation_id": correlation} if correlation else {}
    return Log(BEGIN + int(at * MS), severity, "", body, "hub", trace, of.span_id if of else "", found, {"service.name": "hub"})


class Source:
    """All that there is, by the rule that every source keeps: whole traces, and what has the ID outside of traces."""

    def __init__(self, *records: Span | Log) -> None:
        self.records = records

    def find(self, identifier: str) -> Records:
        def has(record: Span | Log) -> bool:
            return identifier in (record.trace_id, record.correlation_id, record.attributes.get("messaging.message.id"))

        traces = {record.trace_id for record in self.records if has(record)}
        kept = [record for record in self.records if record.trace_id in traces or has(record)]
        return Records(tuple(r for r in kept if isinstance(r, Span)), tuple(r for r in kept if isinstance(r, Log)))


def story(*records: Span | Log, of: str = "c-1") -> Story:
    told = build(Source(*records), of)
    assert told is not None
    return told


def lines(told: Story) -> list[list[str]]:
    return [
        ["  " * line.depth + (title(line) if isinstance(line, Row) else str(line.log.body)) for line in lane.lines] for lane in told.lanes
    ]


def request(**values) -> tuple[Span, Span]:
    root = span("POST /orders/", "SERVER", 0, 40, http__response__status_code=201, **values)
    return root, span("send default", "PRODUCER", 30, 1, root, messaging__message__id="j-1", rq__job__function="hub.jobs.sync")


# --- what belongs to it ---------------------------------------------------------------------------------------------------------------


def test_nothing_known_is_no_story() -> None:
    assert build(Source(span()), "c-2") is None


@pytest.mark.parametrize("identifier", ["c-1", TRACE, "b" * 32, "j-1"])
def test_every_id_leads_to_the_whole_story(identifier: str) -> None:
    root, producer = request()
    other_trace = span("nightly", trace="b" * 32)
    told = story(root, producer, other_trace, log("outside", trace=""), of=identifier)
    assert {each.name for each in told.records.spans} == {"POST /orders/", "send default", "nightly"}
    assert [each.body for each in told.records.logs] == ["outside"]
    assert told.correlation_id == "c-1"
    assert told.traces == [TRACE, "b" * 32]


def test_another_correlation_id_in_the_same_trace_is_another_story() -> None:
    mine, foreign, nobodys = span("mine"), span("foreign", correlation="c-2"), span("upstream's", correlation="")
    told = story(mine, foreign, nobodys, log("foreign", correlation="c-2"), log("nobody's", correlation=""))
    assert [each.name for each in told.records.spans] == ["mine", "upstream's"]
    assert [each.body for each in told.records.logs] == ["nobody's"]


def test_a_trace_with_several_correlation_ids_is_shown_whole() -> None:
    told = story(span("one"), span("two", correlation="c-2"), of=TRACE)
    assert told.correlation_id == ""
    assert len(told.records.spans) == 2


def test_a_job_in_a_trace_with_several_correlation_ids_leads_to_its_own() -> None:
    root, producer = request()
    assert story(root, producer, span("other", correlation="c-2"), of="j-1").correlation_id == "c-1"


# --- order ----------------------------------------------------------------------------------------------------------------------------


def test_children_and_logs_are_told_in_order_of_time() -> None:
    root, producer = request()
    late = span("late", at=20, parent=root)
    early = span("early", at=1, parent=root)
    inner = span("inner", at=2, parent=early)
    run = job_run(producer, 1, 60, "finished")
    told = story(run, late, inner, log("between", 10, root), log("in the job", 65, run), log("loose", 90), producer, early, root)
    assert lines(told) == [
        ["POST /orders/ → 201", "  early", "    inner", "  between", "  late", "  send default · sync"],
        ["process default · sync · attempt 1/3 → finished", "  in the job"],
        ["loose"],
    ]


def test_similar_statements_are_one_line() -> None:
    root = span("GET /", "SERVER", 0, 40)
    select = {"db__system__name": "sqlite", "db__query__text": "SELECT ?"}
    runs = [span("SELECT", "CLIENT", n, 0.5, root, **select) for n in range(5)]
    other = span("SELECT", "CLIENT", 6, 0.5, root, db__system__name="sqlite", db__query__text="SELECT 2")
    again = [span("SELECT", "CLIENT", 7 + n, 0.5, root, **select) for n in range(2)]
    told = story(root, *runs, other, *again)
    assert lines(told) == [["GET /", "  5× SELECT ?", "  SELECT 2", "  SELECT ?", "  SELECT ?"]]
    assert told.verdict.sql.number == 8


def test_a_failed_statement_and_one_that_has_a_log_stand_alone() -> None:
    root = span("GET /", "SERVER", 0, 40)
    select = {"db__system__name": "sqlite", "db__query__text": "SELECT ?"}
    runs = [span("SELECT", "CLIENT", n, 0.5, root, failed=n == 3, **select) for n in range(7)]
    assert lines(story(root, *runs)) == [["GET /", "  3× SELECT ?", "  SELECT ?", "  3× SELECT ?"]]
    said = [span("SELECT", "CLIENT", n, 0.5, root, **select) for n in range(4)]
    assert lines(story(root, *said, log("slow", 3.2, said[2])))[0] == ["GET /", *["  SELECT ?"] * 3, "    slow", "  SELECT ?"]


def test_a_circle_of_parents_ends() -> None:
    one = span("one", parent="f" * 16)
    two = span("two", at=1, parent=one)
    circle = Span(**{**{f: getattr(one, f) for f in one.__slots__}, "parent_id": two.span_id})
    assert lines(story(circle, two)) == [["one", "  two"]]


def test_a_span_that_is_its_own_parent() -> None:
    own = span("own", parent=f"{next(numbers) + 1:016x}")
    assert own.parent_id == own.span_id
    assert lines(story(own)) == [["own"]]


def test_a_very_deep_trace() -> None:
    chain = [span("root")]
    for _ in range(3000):
        chain.append(span("deep", parent=chain[-1]))
    (lane,) = story(*chain).lanes
    assert len(lane.lines) == 3001
    assert lane.lines[-1].depth == 3000


def test_the_same_span_id_in_two_traces() -> None:
    one = span("one")
    two = Span(**{**{f: getattr(one, f) for f in one.__slots__}, "trace_id": "b" * 32, "name": "two"})
    assert sorted(lines(story(one, two))) == [["one"], ["two"]]


# --- verdict --------------------------------------------------------------------------------------------------------------------------


def test_a_healthy_request() -> None:
    root = span("GET /", "SERVER", 0, 40, http__response__status_code=200)
    told = story(
        root,
        span("SELECT", "CLIENT", 1, 2, root, db__system__name="postgresql"),
        span("GET", "CLIENT", 4, 1, root, db__system__name="redis"),
        span("GET", "CLIENT", 6, 10, root, http__request__method="GET"),
        log("oops", 7, root, severity=17),
    )
    verdict = told.verdict
    assert verdict.outcome == "ok"
    assert (verdict.total_seconds, verdict.active_seconds) == (0.04, 0.04)
    assert (verdict.sql.number, verdict.sql.seconds) == (1, 0.002)
    assert (verdict.redis.number, verdict.outbound.number, verdict.outbound.seconds) == (1, 1, 0.01)
    assert (verdict.errors, verdict.error_logs) == (0, 1)
    assert headline(told) == "GET / → 200 in 40.0 ms"
    assert not told.pending


@pytest.mark.parametrize(
    ("runs", "outcome", "sentence"),
    [
        ([(1, "finished")], "ok", "job sync finished in 10.0 ms"),
        ([(1, "retried"), (2, "finished")], "recovered", "job sync failed 1×, finished on attempt 2 in 10.0 ms"),
        ([(1, "retried"), (2, "retried")], "running", "job sync failed 2×, to be tried again"),
        ([(1, "retried"), (2, "retried"), (3, "retried")], "failed", "job sync retried after 3 attempts"),
        ([(1, "retried"), (2, "retried"), (3, "failed")], "failed", "job sync failed after 3 attempts"),
        ([(1, "timed_out")], "failed", "job sync timed out after 1 attempt"),
        ([(1, "killed")], "failed", "job sync killed after 1 attempt"),
        ([(1, None)], "failed", "job sync failed after 1 attempt"),
        ([], "running", "job sync enqueued, not run yet"),
    ],
)
def test_a_job(runs: list[tuple[int, str | None]], outcome: str, sentence: str) -> None:
    root, producer = request()
    told = story(root, producer, *(job_run(producer, attempt, 50.0 * attempt, status) for attempt, status in runs))
    assert told.verdict.outcome == outcome
    assert headline(told) == f"POST /orders/ → 201 in 40.0 ms; {sentence}"
    assert told.verdict.attempts == len(runs)
    assert told.pending is (outcome == "running")


def test_a_failed_request_is_failed_even_when_its_job_worked() -> None:
    root, producer = request(failed=True)
    assert story(root, producer, job_run(producer, 1, 50, "finished")).verdict.outcome == "failed"


def test_a_handled_error_inside_is_counted_and_no_failure() -> None:
    root = span("GET /", "SERVER", 0, 40)
    told = story(root, span("GET", "CLIENT", 1, 1, root, failed=True, http__request__method="GET"))
    assert (told.verdict.outcome, told.verdict.errors) == ("ok", 1)


def test_queue_wait_is_what_the_worker_said_else_what_the_clocks_say() -> None:
    root, producer = request()
    assert story(root, producer, job_run(producer, 1, 50, "finished")).verdict.queue_wait_seconds == pytest.approx(0.019)
    assert story(root, producer, job_run(producer, 1, 50, "finished", rq__job__queue_wait=0.5)).verdict.queue_wait_seconds == 0.5


def test_waiting_is_not_active() -> None:
    root, producer = request()
    verdict = story(root, producer, job_run(producer, 1, 60_000, "finished")).verdict
    assert verdict.total_seconds == pytest.approx(60.01)
    assert verdict.active_seconds == pytest.approx(0.05)


def test_logs_only() -> None:
    told = story(log("one"), log("two", 5))
    assert headline(told) == "2 log records"
    assert told.verdict.total_seconds == 0.005
    assert lines(told) == [["one", "two"]]


# --- notes ----------------------------------------------------------------------------------------------------------------------------


def test_a_complete_story_has_no_notes() -> None:
    root, producer = request()
    assert story(root, producer, job_run(producer, 1, 50, "finished")).notes == ()


def test_missing_parents() -> None:
    told = story(span("one", parent="f" * 16), span("two", parent="e" * 16))
    assert told.notes == ("2 spans have missing parents: not arrived yet, or lost",)
    assert told.pending


def test_a_request_from_elsewhere_is_complete() -> None:
    told = story(span("GET /", "SERVER", parent="f" * 16))
    assert told.notes == ("1 request came from a caller that is not in here",)
    assert not told.pending


def test_a_job_that_has_not_run() -> None:
    assert story(*request()).notes == ("job j-1 (sync) is enqueued; no run of it has arrived",)


def test_a_job_that_is_running() -> None:
    root, producer = request()
    told = story(root, producer, span("SELECT", "CLIENT", 80, 1, "f" * 16))
    assert told.notes[-1] == "job j-1 (sync) is still running"


def test_a_retry_to_come() -> None:
    root, producer = request()
    assert story(root, producer, job_run(producer, 1, 50, "retried")).notes == ("job j-1 (sync): attempt 2 of 3 is still to come",)


def test_clocks_that_differ() -> None:
    root, producer = request()
    assert story(root, producer, job_run(producer, 1, -170, "finished")).notes == (
        "clocks differ by at least 200 ms between the machines of this story",
    )


def test_what_a_source_could_not_give_is_said() -> None:
    class Partial:
        def find(self, _: str) -> Records:
            return Records((span(),), (), ("half of it",))

    told = build(Partial(), "c-1")
    assert told
    assert told.notes == ("half of it",)


# --- the axis -------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e5)), min_size=1, max_size=20))
def test_the_axis_keeps_the_order_of_time(intervals: list[tuple[float, float]]) -> None:
    spans = [span(at=at, took=took) for at, took in intervals]
    axis = Axis.of(story(*spans))
    moments = sorted({moment for each in spans for moment in (each.start, each.end)})
    places = [axis.at(moment) for moment in moments]
    assert places == sorted(places)
    assert places[0] == 0.0
    assert places[-1] == pytest.approx(1.0) or len(moments) == 1
    for moment, place in zip(moments, places, strict=True):
        assert axis.at(axis.when(place)) == pytest.approx(place, abs=1e-6), moment


def test_a_long_wait_is_drawn_short() -> None:
    root, producer = request()
    axis = Axis.of(story(root, producer, job_run(producer, 1, 3_600_000, "finished")))
    assert axis.gaps == ((BEGIN + 40 * MS, BEGIN + 3_600_000 * MS),)
    assert axis.at(BEGIN + 40 * MS) > 0.7
    assert axis.at(BEGIN + 3_600_000 * MS) < 0.85


# --- words and JSON -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 µs"), (4.2e-5, "42 µs"), (0.0123, "12.3 ms"), (0.123, "123 ms"), (1.5, "1.50 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@given(st.text())
def test_a_line_is_one_line_and_cannot_steer_a_terminal(text: str) -> None:
    said = one_line(text)
    assert len(said.splitlines()) <= 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in said)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
)
mappings = st.dictionaries(st.text(), values, max_size=3)
times = st.integers(0, (1 << 64) - 1)
spans = st.builds(
    Span, *[st.text(max_size=5)] * 4, st.sampled_from(["SERVER", "CLIENT"]), times, times, st.just("ERROR"), st.text(), st.text(), mappings, mappings,
    st.tuples(st.builds(Event, st.text(), times, mappings)), st.tuples(st.builds(Link, st.text(), st.text())),
)  # fmt: skip
logs = st.builds(Log, times, st.integers(1, 24), st.just("INFO"), values, st.text(), st.text(), st.text(), mappings, mappings)


@given(st.builds(Records, st.tuples(spans), st.tuples(logs), st.tuples(st.text())))
def test_records_survive_json(records: Records) -> None:
    assert from_json(json.loads(json.dumps(to_json(records)))) == records


def test_the_report() -> None:
    root, producer = request()
    told = report(story(root, producer, job_run(producer, 1, 50, "retried"), log("x", 1, root)))
    assert told["verdict"]["outcome"] == "running"
    assert told["jobs"] == [{"id": "j-1", "queue": "", "function": "hub.jobs.sync", "state": "retried", "attempts": 1}]
    assert told["notes"] == ["job j-1 (sync): attempt 2 of 3 is still to come"]
    assert [each["kind"] for each in told["spans"]] == ["SERVER", "PRODUCER", "CONSUMER"]
    assert told["spans"][0]["start_unix_nano"] == str(BEGIN)
    assert told["logs"][0]["body"] == "x"


def test_lines_of_logs_know_their_moment() -> None:
    (lane,) = story(log("x", 3)).lanes
    (line,) = lane.lines
    assert isinstance(line, Line)
    assert (line.start, lane.start, lane.end) == (BEGIN + 3 * MS,) * 3
