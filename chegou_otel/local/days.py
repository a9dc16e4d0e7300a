"""The day files: one SQLite database per day of arrival (UTC). A day is forgotten by removing its file, which costs nothing."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.v1\.db")
BUSY_SECONDS: Final = 10.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS chunk (
    id INTEGER PRIMARY KEY, signal TEXT NOT NULL, trace_id BLOB NOT NULL, correlation TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS chunk_by_trace ON chunk (trace_id) WHERE trace_id <> x'';
CREATE INDEX IF NOT EXISTS chunk_outside_traces ON chunk (correlation) WHERE trace_id = x'' AND correlation <> '';
-- a correlation ID or a job ID, and a trace that has it
CREATE TABLE IF NOT EXISTS known (value TEXT NOT NULL, trace_id BLOB NOT NULL, PRIMARY KEY (value, trace_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS span (
    trace_id BLOB NOT NULL, span_id BLOB NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL,
    route TEXT NOT NULL, code TEXT NOT NULL, correlation TEXT NOT NULL, job TEXT NOT NULL,
    start INTEGER NOT NULL, duration INTEGER NOT NULL, error INTEGER NOT NULL, entry INTEGER NOT NULL,
    PRIMARY KEY (trace_id, span_id)
) WITHOUT ROWID;
-- only where work begins: an index on every span would cost more than all the rest
CREATE INDEX IF NOT EXISTS entry_by_time ON span (start) WHERE entry;
CREATE INDEX IF NOT EXISTS entry_by_route ON span (route, start) WHERE entry;
CREATE INDEX IF NOT EXISTS entry_by_service ON span (service, start) WHERE entry;
CREATE TABLE IF NOT EXISTS operation (
    service TEXT NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL, PRIMARY KEY (service, name, kind)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log_uid (uid TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metric (
    name TEXT NOT NULL, service TEXT NOT NULL, instance TEXT NOT NULL, attributes TEXT NOT NULL,
    type TEXT NOT NULL, unit TEXT NOT NULL, value TEXT NOT NULL, time INTEGER NOT NULL,
    PRIMARY KEY (name, service, instance, attributes)
) WITHOUT ROWID;
"""


def default_folder() -> Path:
    """Where data lives when nobody says otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "chegou-otel"


def today() -> str:
    """The day of arrival."""
    return datetime.now(UTC).date().isoformat()


class Days:
    """A folder of day files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, day: str) -> Path:
        """The file of a day."""
        return self.folder / f"{day}.v1.db"

    def days(self) -> list[str]:
        """The days that there are, newest first."""
        with contextlib.suppress(FileNotFoundError):
            found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
            return sorted((match[1] for match in found if match), reverse=True)
        return []

    def open(self, day: str) -> sqlite3.Connection:
        """For writing; makes the file when it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.path(day)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            # NORMAL: what is committed survives a killed process; after a power cut the last moments may be missing.
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-65536", "wal_autocheckpoint=4000", "temp_store=MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def reading(self, day: str) -> Iterator[sqlite3.Connection]:
        """For reading, while another process may be writing."""
        connection = sqlite3.connect(self.path(day), timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA query_only=ON")
            yield connection
        finally:
            connection.close()

    def set_aside(self, day: str) -> Path:
        """A file that SQLite cannot read gives way to a new one, and is kept for whoever wants to look."""
        path = self.path(day)
        aside = path.with_name(f"{path.name}.unreadable-{datetime.now(UTC):%H%M%S%f}")
        path.rename(aside)
        self._remove_companions(path)
        return aside

    def forget(self, keep: int) -> list[str]:
        """Remove the days before the last `keep`; today is one of them."""
        oldest = (datetime.now(UTC).date() - timedelta(days=keep - 1)).isoformat()
        gone = [day for day in self.days() if day < oldest]
        for day in gone:
            path = self.path(day)
            path.unlink(missing_ok=True)
            self._remove_companions(path)
        return gone

    @staticmethod
    def _remove_companions(path: Path) -> None:
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
