"""One thread writes. It takes all that is waiting, commits it in one transaction, and only then are the senders answered."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import zlib
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from chegou_otel.local import otlp
from chegou_otel.local.days import Days, today
from chegou_otel.local.digest import Digest, Item, SpanRow, chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

logger = logging.getLogger("chegou_otel.local")

T = TypeVar("T")
RECORDS_PER_COMMIT: Final = 8192
WAITING_BYTES: Final = 64 << 20
COMPRESSION: Final = 2  # beyond it the processor pays more than the disk saves
HOUSEKEEPING_SECONDS: Final = 60.0
VARIABLES: Final = 2000  # of one SQL statement, per column


class Full(Exception):  # noqa: N818 - what the queue is
    """So much is waiting that no more is taken."""


@dataclass
class Submission:
    """A request on its way to the disk; `done` is set by the commit."""

    digest: Digest
    done: Future[None] = field(default_factory=Future)


class Writer:
    """The only one who writes to the day files."""

    def __init__(self, days: Days, keep_days: int, clock: Callable[[], str] = today) -> None:
        self.days = days
        self.keep_days = keep_days
        self._clock = clock
        self._day = ""
        self._connection: sqlite3.Connection | None = None
        self._before: sqlite3.Connection | None = None
        self._operations: set[tuple[str, str, int]] = set()
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="chegou-otel-writer", daemon=True)

    def start(self) -> None:
        """Open today's file (an error here is for the caller), then write in the background."""
        self._turn_page()
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Write what is waiting, then close. False when that took too long."""
        with self._lock:
            self._stopped = True
        self._queue.put(None)
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def submit(self, digest: Digest) -> Future[None]:
        """Put in line; the result comes with the commit. Raises Full."""
        submission = Submission(digest)
        with self._lock:
            if self._stopped or (self._waiting and self._waiting + digest.size > WAITING_BYTES):
                raise Full
            self._waiting += digest.size
            self._queue.put(submission)
        return submission.done

    # --- the thread -------------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        running = True
        while running:
            batch, running = self._next_batch()
            if batch:
                self._write(batch)
                with self._lock:
                    self._waiting -= sum(each.digest.size for each in batch)
            elif running:
                self._housekeeping()
        self._close()

    def _next_batch(self) -> tuple[list[Submission], bool]:
        batch: list[Submission] = []
        records = 0
        try:
            submission = self._queue.get(timeout=HOUSEKEEPING_SECONDS)
            while submission is not None:
                batch.append(submission)
                records += len(submission.digest.items)
                if records >= RECORDS_PER_COMMIT:
                    return batch, True
                submission = self._queue.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _housekeeping(self) -> None:
        try:
            self._turn_page()
        except (sqlite3.Error, OSError) as error:
            logger.warning("The data folder cannot be used: %s", error)

    def _write(self, batch: Sequence[Submission]) -> None:
        try:
            self._turn_page()
            self._commit(batch)
        except Exception as error:
            self._roll_back()
            if len(batch) > 1:  # one of them may be the reason: it must not take the others along
                for each in batch:
                    self._write([each])
                return
            logger.warning("Not stored: %s", error)
            batch[0].done.set_exception(error)
        else:
            for each in batch:
                each.done.set_result(None)

    def _commit(self, batch: Sequence[Submission]) -> None:
        connection = self._open_connection
        connection.execute("BEGIN IMMEDIATE")
        for signal in (otlp.TRACES, otlp.LOGS):
            items = [item for each in batch if each.digest.signal == signal for item in each.digest.items]
            fresh = self._fresh_spans(items) if signal == otlp.TRACES else self._fresh_logs(items)
            self._insert(signal, fresh)
        for each in batch:
            if each.digest.signal == otlp.METRICS:
                self._insert_metrics(each.digest)
        connection.execute("COMMIT")

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._operations.clear()

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the data folder cannot be used")
        return self._connection

    # --- only once ----------------------------------------------------------------------------------------------------------------------

    def _fresh_spans(self, items: list[Item]) -> list[Item]:
        """Senders repeat what was not confirmed to them: of every span the first one stays."""
        first: dict[tuple[bytes, bytes], Item] = {}
        for item in items:
            if item.row:
                first.setdefault((item.trace_id, item.row.span_id), item)
        for part in _parts(list(first), VARIABLES):
            values = ",".join(["(?,?)"] * len(part))
            sql = f"WITH given(t, s) AS (VALUES {values}) SELECT t, s FROM given CROSS JOIN span ON trace_id = t AND span_id = s"  # noqa: S608
            self._strike(first, sql, [value for key in part for value in key])
        return list(first.values())

    def _fresh_logs(self, items: list[Item]) -> list[Item]:
        """The same by `log.record.uid`; a record without one cannot be told from its twin, and stays."""
        first: dict[tuple[str], Item] = {}
        for item in items:
            if item.uid:
                first.setdefault((item.uid,), item)
        known = list(first)
        for part in _parts(known, VARIABLES):
            values = ",".join(["(?)"] * len(part))
            sql = f"WITH given(u) AS (VALUES {values}) SELECT u FROM given CROSS JOIN log_uid ON uid = u"  # noqa: S608
            self._strike(first, sql, [key[0] for key in part])
        self._open_connection.executemany("INSERT INTO log_uid VALUES (?)", list(first))
        return [item for item in items if not item.uid or first.get((item.uid,)) is item]

    def _strike(self, first: dict[T, Item], sql: str, values: Sequence[object]) -> None:
        """Remove what is stored already, today or the day before: a repeat may come after midnight."""
        for connection in filter(None, (self._connection, self._before)):
            for key in connection.execute(sql, values).fetchall():
                first.pop(key, None)

    # --- rows ---------------------------------------------------------------------------------------------------------------------------

    def _insert(self, signal: str, items: list[Item]) -> None:
        connection = self._open_connection
        made = list(chunks(signal, items))
        connection.executemany(
            "INSERT INTO chunk (signal, trace_id, correlation, body) VALUES (?, ?, ?, ?)",
            [(signal, each.trace_id, each.correlation, zlib.compress(each.body, COMPRESSION)) for each in made],
        )
        rows = [item.row for item in items if item.row]
        connection.executemany(f"INSERT INTO span VALUES ({','.join('?' * len(SpanRow._fields))})", rows)  # noqa: S608
        connection.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", _known(items, rows))
        operations = {(row.service, row.name, row.kind) for row in rows} - self._operations
        connection.executemany("INSERT OR IGNORE INTO operation VALUES (?, ?, ?)", operations)
        self._operations |= operations

    def _insert_metrics(self, digest: Digest) -> None:
        connection = self._open_connection
        connection.execute(
            "INSERT INTO chunk (signal, trace_id, correlation, body) VALUES (?, x'', '', ?)",
            (otlp.METRICS, zlib.compress(digest.body, COMPRESSION)),
        )
        connection.executemany(
            "INSERT INTO metric VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " type = excluded.type, unit = excluded.unit, value = excluded.value, time = excluded.time WHERE excluded.time >= time",
            digest.metrics,
        )

    # --- days ---------------------------------------------------------------------------------------------------------------------------

    def _turn_page(self) -> None:
        """Today's file, and the last one before it for repeats; days beyond retention are forgotten."""
        day = self._clock()
        if day == self._day and self._connection is not None and self.days.path(day).exists():
            return
        self._close()
        self.days.forget(self.keep_days)
        self._connection = self._open(day)
        earlier = [each for each in self.days.days() if each < day]
        self._before = self._open(earlier[0]) if earlier else None
        self._day = day

    def _open(self, day: str) -> sqlite3.Connection:
        try:
            return self.days.open(day)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            logger.warning("The data of %s is unreadable (%s) and was set aside: %s", day, error, self.days.set_aside(day))
            return self.days.open(day)

    def _close(self) -> None:
        for connection in filter(None, (self._connection, self._before)):
            connection.close()
        self._connection = self._before = None
        self._operations = set()


def _known(items: Iterable[Item], rows: Iterable[SpanRow]) -> set[tuple[str, bytes]]:
    """Which ID leads to which trace."""
    found = {(value, row.trace_id) for row in rows for value in (row.correlation, row.job) if value}
    return found | {(item.correlation, item.trace_id) for item in items if item.correlation and item.trace_id}


def _parts(values: list[T], size: int) -> Iterator[list[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))
