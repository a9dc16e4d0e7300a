"""Reading the day files: everything about an ID, what came lately, what Jaeger's API asks for. Any number of processes may read."""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from chegou_otel.local import otlp
from chegou_otel.local.days import Days
from chegou_otel.local.records import KINDS, Log, Records, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger("chegou_otel.local")

T = TypeVar("T")
MOST_RECORDS: Final = 20_000  # of one story: beyond it nobody reads, and a browser suffers
HEX_TRACE_ID: Final = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """Where work began: a request, a job's run, or the root of a trace."""

    trace_id: str
    service: str
    name: str
    kind: str
    route: str
    code: str
    correlation_id: str
    job: str
    start: int
    duration: int
    error: bool


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """What traces to look for; nothing means any. Times in nanoseconds."""

    service: str = ""
    operation: str = ""
    since: int = 0
    until: int = (1 << 63) - 1
    shortest: int = 0
    longest: int = (1 << 63) - 1
    attributes: tuple[tuple[str, str], ...] = ()
    depth: int = 20


class Store:
    """A folder of day files, read."""

    def __init__(self, folder: Path) -> None:
        self.days = Days(folder)

    # --- one story ----------------------------------------------------------------------------------------------------------------------

    def find(self, identifier: str) -> Records:
        """Everything of all traces that have this ID: a correlation ID, a trace ID or a job ID."""
        traces = set().union(*self._on_all_days(lambda connection: _traces_of(connection, identifier)))
        spans: dict[tuple[str, str], Span] = {}
        logs: list[Log] = []
        unique: set[str] = set()
        partial: list[str] = []
        for signal, body in self._bodies(traces, identifier):
            if len(spans) + len(logs) >= MOST_RECORDS:
                partial.append(f"only the first {MOST_RECORDS:,} records are shown")
                break
            if signal == otlp.TRACES:
                for span in otlp.span_records(body):
                    spans.setdefault((span.trace_id, span.span_id), span)  # a repeat may have come on another day
            else:
                logs.extend(log for log in otlp.log_records(body) if _first_time(log, unique))
        return Records(tuple(spans.values()), tuple(logs), tuple(partial))

    def _bodies(self, traces: set[bytes], identifier: str) -> Iterator[tuple[str, bytes]]:
        def chunks(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            sql = "SELECT signal, body FROM chunk WHERE trace_id = ? AND trace_id <> x'' ORDER BY id LIMIT ?"
            found = [row for trace in traces for row in connection.execute(sql, (trace, MOST_RECORDS))]
            sql = "SELECT signal, body FROM chunk WHERE trace_id = x'' AND correlation = ? AND correlation <> '' ORDER BY id LIMIT ?"
            return found + connection.execute(sql, (identifier, MOST_RECORDS)).fetchall()

        for found in reversed(self._on_all_days(chunks)):
            yield from ((signal, zlib.decompress(body)) for signal, body in found)

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """The resourceSpans of a trace as OTLP's JSON."""
        wanted = _trace_id(trace_id)
        sql = "SELECT body FROM chunk WHERE trace_id = ? AND trace_id <> x'' AND signal = ? ORDER BY id"
        rows = self._on_all_days(lambda connection: connection.execute(sql, (wanted, otlp.TRACES)).fetchall()) if wanted else []
        return [each for found in reversed(rows) for (body,) in found for each in otlp.otlp_json(zlib.decompress(body))]

    # --- lists --------------------------------------------------------------------------------------------------------------------------

    def recent(self, limit: int = 50) -> list[Entry]:
        """The newest requests, runs of jobs and other roots, newest first."""
        sql = f"SELECT {_ENTRY} FROM span WHERE entry ORDER BY start DESC LIMIT ?"  # noqa: S608
        found: list[Entry] = []
        for day in self.days.days():
            found += [_entry(row) for row in self._on(day, lambda connection: connection.execute(sql, (limit,)).fetchall()) or []]
            if len(found) >= limit:
                break
        return sorted(found, key=lambda entry: -entry.start)[:limit]

    def services(self) -> list[str]:
        """The services that sent spans."""
        sql = "SELECT DISTINCT service FROM operation"
        return sorted({row[0] for rows in self._on_all_days(lambda connection: connection.execute(sql).fetchall()) for row in rows})

    def operations(self, service: str, kind: str = "") -> list[tuple[str, str]]:
        """Names and kinds of a service's spans."""
        sql = "SELECT name, kind FROM operation WHERE service = ?"
        rows = self._on_all_days(lambda connection: connection.execute(sql, (service,)).fetchall())
        found = {(name, otlp.named(KINDS, number)) for each in rows for name, number in each}
        return sorted(pair for pair in found if not kind or pair[1] == kind)

    def search(self, query: TraceQuery) -> list[str]:
        """Trace IDs, newest first."""
        found: dict[bytes, int] = {}
        for rows in self._on_all_days(lambda connection: _search(connection, query)):
            for trace_id, start in rows:
                found[trace_id] = max(start, found.get(trace_id, 0))
        newest = sorted(found, key=lambda trace_id: -found[trace_id])
        wanted = [pair for pair in query.attributes if pair[0] not in _COLUMNS]
        matching = (trace.hex() for trace in newest if not wanted or self._has(trace.hex(), wanted))
        return [trace for trace, _ in zip(matching, range(query.depth), strict=False)]

    def _has(self, trace_id: str, wanted: Sequence[tuple[str, str]]) -> bool:
        """Whether one span of the trace has all of these attributes: those without a column are looked for in the records."""
        return any(
            all(_said(span.attributes.get(key, span.resource.get(key))) == value for key, value in wanted)
            for span in self.find(trace_id).spans
        )

    def metrics(self, name: str = "") -> list[dict[str, Any]]:
        """The last value of every series, of one name or of all."""
        sql = "SELECT name, service, instance, attributes, type, unit, value, time FROM metric WHERE name = ? OR ? = ''"
        last: dict[tuple[str, ...], tuple[Any, ...]] = {}
        for rows in self._on_all_days(lambda connection: connection.execute(sql, (name, name)).fetchall()):
            for row in rows:
                last.setdefault(row[:4], row)  # the newest day comes first
        return [_series(row) for _, row in sorted(last.items())]

    # --- files --------------------------------------------------------------------------------------------------------------------------

    def _on_all_days(self, ask: Callable[[sqlite3.Connection], T]) -> list[T]:
        """The answers of all days, newest day first."""
        answers = (self._on(day, ask) for day in self.days.days())
        return [answer for answer in answers if answer is not None]

    def _on(self, day: str, ask: Callable[[sqlite3.Connection], T]) -> T | None:
        try:
            with self.days.reading(day) as connection:
                return ask(connection)
        except sqlite3.Error as error:  # forgotten meanwhile, not yet made, or broken: the other days still answer
            logger.debug("The data of %s is not read: %s", day, error)
            return None


_ENTRY: Final = "trace_id, service, name, kind, route, code, correlation, job, start, duration, error"
_COLUMNS: Final = {
    "correlation_id": "correlation",
    "messaging.message.id": "job",
    "http.route": "route",
    "http.response.status_code": "code",
}


def _entry(row: Sequence[Any]) -> Entry:
    trace_id, service, name, kind, route, code, correlation, job, start, duration, error = row
    return Entry(trace_id.hex(), service, name, otlp.named(KINDS, kind), route, code, correlation, job, start, duration, bool(error))


def _trace_id(text: str) -> bytes:
    """The bytes of a trace ID in hex, or none."""
    try:
        return bytes.fromhex(text) if len(text) == HEX_TRACE_ID else b""
    except ValueError:
        return b""


def _traces_of(connection: sqlite3.Connection, identifier: str) -> set[bytes]:
    found = {row[0] for row in connection.execute("SELECT trace_id FROM known WHERE value = ?", (identifier,))}
    trace_id = _trace_id(identifier)
    return found | ({trace_id} if trace_id else set())


def _first_time(log: Log, unique: set[str]) -> bool:
    uid = log.attributes.get("log.record.uid")
    if not isinstance(uid, str):
        return True
    known = uid in unique
    unique.add(uid)
    return not known


def _search(connection: sqlite3.Connection, query: TraceQuery) -> list[tuple[bytes, int]]:
    """By what has a column. A span of any kind may match, so only a search without conditions is answered from where work began."""
    conditions, values = ["start BETWEEN ? AND ?", "duration BETWEEN ? AND ?"], [query.since, query.until, query.shortest, query.longest]
    given: list[tuple[str, object]] = [(_COLUMNS[key], value) for key, value in query.attributes if key in _COLUMNS]
    given += [(column, value) for column, value in (("service", query.service), ("name", query.operation)) if value]
    conditions += [f"{column} = ?" for column, _ in given]
    parameters: list[object] = [*values, *(value for _, value in given)]
    for column, value in given:
        if column in ("correlation", "job"):  # these have an index of their own
            conditions.append("trace_id IN (SELECT trace_id FROM known WHERE value = ?)")
            parameters.append(value)
    if not {column for column, _ in given} - {"service", "route"}:
        conditions.append("entry")
    limit = query.depth if all(key in _COLUMNS for key, _ in query.attributes) else query.depth * 20
    sql = f"SELECT trace_id, max(start) FROM span WHERE {' AND '.join(conditions)} GROUP BY trace_id ORDER BY 2 DESC LIMIT ?"  # noqa: S608
    return connection.execute(sql, [*parameters, limit]).fetchall()


def _said(value: Any) -> str:
    """An attribute as a query writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _series(row: Sequence[Any]) -> dict[str, Any]:
    name, service, instance, attributes, kind, unit, value, time = row
    return {
        "name": name,
        "service": service,
        "instance": instance,
        "attributes": json.loads(attributes),
        "type": kind,
        "unit": unit,
        "value": json.loads(value),
        "time_unix_nano": str(time),
    }
