"""What is stored, once, by day; and how it is found again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from chegou_otel.local import otlp
from chegou_otel.local.days import Days, today
from chegou_otel.local.digest import digest
from chegou_otel.local.store import Store, TraceQuery
from chegou_otel.local.writer import Full, Writer
from tests.local.wires import MS, Sender, Sent, gauge, histogram, order, uuid7

if TYPE_CHECKING:
    from pathlib import Path

Write = Callable[[str, bytes], None]


class Clock:
    def __init__(self) -> None:
        self.day = "2026-03-01"

    def __call__(self) -> str:
        return self.day


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(tmp_path: Path, clock: Clock) -> Iterator[Writer]:
    writer = Writer(Days(tmp_path / "data"), 100_000, clock)
    writer.start()
    yield writer
    assert writer.stop(10)


@pytest.fixture
def store(writer: Writer) -> Store:
    return Store(writer.days.folder)


def write(writer: Writer, signal: str, body: bytes) -> None:
    message = otlp.parse(signal, body)
    writer.submit(digest(signal, message, len(body))).result(10)


def keep(writer: Writer, sent: Sent) -> Sent:
    for path, body in sent.bodies:
        write(writer, path.rpartition("/")[2], body)
    return sent


@pytest.mark.parametrize("by", ["correlation_id", "trace_id", "job_id"])
def test_found_by_each_of_its_ids(writer: Writer, store: Store, by: str) -> None:
    sent = keep(writer, order())
    keep(writer, order())
    records = store.find(getattr(sent, by))
    assert (len(records.spans), len(records.logs)) == (11, 3)
    assert {span.correlation_id for span in records.spans} == {sent.correlation_id}


def test_nothing_is_known_of_others(writer: Writer, store: Store) -> None:
    keep(writer, order())
    for identifier in ("", "x", "0" * 32, uuid7(), "%", "' OR 1=1"):
        assert not store.find(identifier)


def test_all_that_a_record_says_comes_back(writer: Writer, store: Store) -> None:
    sender = Sender()
    values = {
        "text": "ünï\x00",
        "number": -3,
        "real": 1.5,
        "yes": True,
        "list": ["a", 1],
        "map": {"deep": [{}]},
        "bytes": b"\x00\xff",
        "nan": float("nan"),
    }
    span_id = sender.span("SELECT", "CLIENT", 1, 2, b"12345678", "no such table", **values)
    sender.log({"event": "x", "n": [1]}, 3, span_id, 17, extra=1)
    write(writer, "traces", sender.traces_body)
    write(writer, "logs", sender.logs_body)

    records = store.find(sender.correlation_id)

    (span,), (log,) = records.spans, records.logs
    expected = {**values, "bytes": "AP8=", "nan": "nan", "correlation_id": sender.correlation_id}
    assert span.attributes == expected
    assert (span.kind, span.status, span.status_message, span.parent_id) == ("CLIENT", "ERROR", "no such table", b"12345678".hex())
    assert (span.start, span.end) == (sender.begin + MS, sender.begin + 3 * MS)
    assert span.events[0].attributes == {"exception.type": "ValueError", "exception.message": "no such table"}
    assert (log.body, log.level, log.logger, log.span_id) == ({"event": "x", "n": [1]}, "ERROR", "hub.views", span_id.hex())
    assert span.service == log.service == "hub"


def test_a_log_outside_of_any_trace_is_found_by_its_correlation_id(writer: Writer, store: Store) -> None:
    sender = Sender(trace_id=b"")
    sender.log("alone")
    other = Sender(trace_id=b"", correlation_id="")
    other.log("nobody's")
    write(writer, "logs", sender.logs_body)
    write(writer, "logs", other.logs_body)
    assert [log.body for log in store.find(sender.correlation_id).logs] == ["alone"]
    assert not store.find("")


def test_a_span_is_kept_once(writer: Writer, store: Store) -> None:
    """The same request again, and a request that overlaps with it."""
    sender = Sender()
    sender.span("first")
    write(writer, "traces", sender.traces_body)
    write(writer, "traces", sender.traces_body)
    sender.span("second")
    sender.traces.MergeFrom(sender.traces)
    write(writer, "traces", sender.traces_body)

    assert sorted(span.name for span in store.find(sender.correlation_id).spans) == ["first", "second"]
    assert rows(store, "SELECT count(*) FROM span") == [(2,)]


def test_the_same_span_id_in_another_trace_is_another_span(writer: Writer, store: Store) -> None:
    one, other = Sender(), Sender()
    for sender in (one, other):
        sender.span("same", span_id=b"12345678")
        write(writer, "traces", sender.traces_body)
    assert store.find(one.correlation_id)
    assert store.find(other.correlation_id)


def test_a_log_record_with_a_uid_is_kept_once(writer: Writer, store: Store) -> None:
    sender = Sender()
    sender.log("with", uid="u1")
    sender.log("with", uid="u1")
    sender.log("without", uid="")
    sender.log("without", uid="")
    for _ in range(2):
        write(writer, "logs", sender.logs_body)
    assert sorted(log.body for log in store.find(sender.correlation_id).logs) == ["with"] + ["without"] * 4


@pytest.mark.parametrize("days", [1, 3])
def test_a_repeat_after_midnight_is_kept_once(writer: Writer, store: Store, clock: Clock, days: int) -> None:
    sent = keep(writer, order())
    clock.day = f"2026-03-0{1 + days}"
    keep(writer, sent)
    records = store.find(sent.correlation_id)
    assert (len(records.spans), len(records.logs)) == (11, 3)
    assert rows(store, "SELECT count(*) FROM span", clock.day) == [(0,)]


def test_a_repeat_two_files_later_is_told_once(writer: Writer, store: Store, clock: Clock) -> None:
    sent = keep(writer, order())
    clock.day = "2026-03-02"
    keep(writer, order())
    clock.day = "2026-03-03"
    keep(writer, sent)
    records = store.find(sent.correlation_id)
    assert (len(records.spans), len(records.logs)) == (11, 3)


def test_a_story_may_span_days(writer: Writer, store: Store, clock: Clock) -> None:
    web = Sender()
    root = web.span("before")
    write(writer, "traces", web.traces_body)
    clock.day = "2026-03-02"
    worker = Sender(trace_id=web.trace_id, correlation_id=web.correlation_id)
    worker.span("after", parent=root)
    write(writer, "traces", worker.traces_body)
    assert [span.name for span in store.find(web.correlation_id).spans] == ["before", "after"]


def test_days_are_forgotten(tmp_path: Path) -> None:
    now = datetime.now(UTC).date()
    days = Days(tmp_path)
    for age in (0, 1, 2, 9):
        days.open((now - timedelta(days=age)).isoformat()).close()
    for name in ("notes.txt", "2020-01-01.db", f"{now - timedelta(days=9)}.v1.db-wal"):
        (tmp_path / name).touch()

    writer = Writer(days, 2)
    writer.start()
    assert writer.stop(10)

    assert sorted(days.days()) == [(now - timedelta(days=age)).isoformat() for age in (1, 0)]
    assert {path.name for path in tmp_path.iterdir()} >= {"notes.txt", "2020-01-01.db"}
    assert not list(tmp_path.glob(f"{now - timedelta(days=9)}*"))


def test_an_unreadable_file_gives_way(tmp_path: Path) -> None:
    days = Days(tmp_path)
    days.path(today()).write_bytes(b"this is no database, by any means" * 100)
    writer = Writer(days, 7)
    writer.start()
    sent = keep(writer, order())
    assert writer.stop(10)
    assert Store(tmp_path).find(sent.correlation_id)
    assert len(list(tmp_path.glob("*unreadable*"))) == 1


def test_one_broken_day_does_not_hide_the_others(writer: Writer, store: Store) -> None:
    sent = keep(writer, order())
    store.days.path("2026-02-27").write_bytes(b"no database" * 1000)
    assert len(store.find(sent.correlation_id).spans) == 11
    assert store.recent()


def test_a_folder_that_was_removed_comes_back(writer: Writer, store: Store) -> None:
    for path in store.days.folder.iterdir():
        path.unlink()
    store.days.folder.rmdir()
    sent = keep(writer, order())
    assert store.find(sent.correlation_id)


def test_files_are_for_their_owner_only(writer: Writer, store: Store) -> None:
    keep(writer, order())
    assert store.days.folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in store.days.folder.iterdir())


def test_after_the_end_nothing_is_taken(tmp_path: Path) -> None:
    writer = Writer(Days(tmp_path), 7)
    writer.start()
    assert writer.stop(10)
    with pytest.raises(Full):
        write(writer, "traces", b"")


def test_times_beyond_what_sqlite_can_count(writer: Writer, store: Store) -> None:
    sender = Sender(begin=(1 << 64) - 5 * MS)
    sender.span("far away", took=2)
    write(writer, "traces", sender.traces_body)
    assert store.find(sender.correlation_id).spans[0].start == sender.begin


def test_an_empty_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert not store.find("x")
    assert store.recent() == store.services() == store.metrics() == []


# --- lists ----------------------------------------------------------------------------------------------------------------------------


def test_recent_is_where_work_began(writer: Writer, store: Store, clock: Clock) -> None:
    sent = keep(writer, order())
    clock.day = "2026-03-02"
    later = Sender(service="other", begin=datetime.now(UTC).timestamp().__int__() * 1_000_000_000 + 60_000 * MS)
    later.span("nightly", at=5, took=7, error="no")
    write(writer, "traces", later.traces_body)

    entries = store.recent()

    assert [entry.name for entry in entries] == ["nightly", "process default", "process default", "POST /orders/"]
    assert [entry.code for entry in entries] == ["", "finished", "retried", "201"]
    assert [entry.error for entry in entries] == [True, False, True, False]
    assert (entries[3].route, entries[3].kind, entries[3].correlation_id) == ("/orders/", "SERVER", sent.correlation_id)
    assert entries[1].job == sent.job_id
    assert entries[0].duration == 7 * MS
    assert len(store.recent(2)) == 2


def test_services_and_operations(writer: Writer, store: Store) -> None:
    keep(writer, order())
    keep(writer, order())
    assert store.services() == ["hub"]
    assert ("POST /orders/", "SERVER") in store.operations("hub")
    assert store.operations("hub", "CONSUMER") == [("process default", "CONSUMER")]
    assert store.operations("nobody") == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (TraceQuery(), "ba"),
        (TraceQuery(depth=1), "b"),
        (TraceQuery(service="hub"), "ba"),
        (TraceQuery(service="nobody"), ""),
        (TraceQuery(operation="SELECT item"), "ba"),
        (TraceQuery(attributes=(("correlation_id", "A"),)), "a"),
        (TraceQuery(attributes=(("messaging.message.id", "job-b"),)), "b"),
        (TraceQuery(attributes=(("http.response.status_code", "201"),)), "ba"),
        (TraceQuery(attributes=(("url.full", "http://api/rate"), ("http.request.method", "GET"))), "ba"),
        (TraceQuery(attributes=(("url.full", "http://api/rate"), ("http.request.method", "POST"))), ""),
        (TraceQuery(attributes=(("correlation_id", "A"), ("url.full", "http://api/rate"))), "a"),
        (TraceQuery(shortest=35 * MS), "ba"),
        (TraceQuery(shortest=50 * MS), ""),
        (TraceQuery(until=1), ""),
    ],
)
def test_search(writer: Writer, store: Store, query: TraceQuery, found: str) -> None:
    traces = {keep(writer, order("A", "job-a")).trace_id: "a", keep(writer, order("B", "job-b")).trace_id: "b"}
    assert "".join(traces[each] for each in store.search(query)) == found


def test_metrics_keep_the_last_value(writer: Writer, store: Store, clock: Clock) -> None:
    write(writer, "metrics", gauge("queue.depth", 3, when=2000, queue="default"))
    write(writer, "metrics", gauge("queue.depth", 2, when=1000, queue="default"))  # late
    write(writer, "metrics", gauge("queue.depth", 9, when=1000, queue="high"))
    clock.day = "2026-03-02"
    write(writer, "metrics", gauge("queue.depth", float("inf"), when=3000, queue="high"))
    write(writer, "metrics", histogram("request.duration", [0.01, 0.02]))

    told = {series["attributes"]["queue"]: series["value"] for series in store.metrics("queue.depth")}

    assert told == {"default": 3.0, "high": "inf"}
    (series,) = store.metrics("request.duration")
    assert (series["type"], series["unit"], series["value"]["count"]) == ("histogram", "s", 2)
    assert len(store.metrics()) == 3


def rows(store: Store, sql: str, day: str = "2026-03-01") -> list[tuple[object, ...]]:
    connection = sqlite3.connect(store.days.path(day))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()
