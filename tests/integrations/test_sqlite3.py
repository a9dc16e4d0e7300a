"""SQLite: statements of any connection and cursor, literals out, errors told, the DB-API unchanged."""

from __future__ import annotations

import sqlite3

import pytest

import chegou_otel
from chegou_otel.testing import capture


def test_a_statement_is_a_client_span_named_by_what_it_does(telemetry):
    with chegou_otel.use_correlation_id("sql-0001"):
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE orders (id, cpf)")
        connection.execute("INSERT INTO orders VALUES (1, '529.982.247-25')")
        assert connection.execute("SELECT id FROM orders WHERE cpf = ?", ("529.982.247-25",)).fetchall() == [(1,)]

    assert telemetry.span_names() == ["CREATE orders", "INSERT orders", "SELECT orders"]
    span = telemetry.span("INSERT orders")
    assert (span.kind, span.correlation_id) == ("CLIENT", "sql-0001")
    assert (span.attributes["db.system.name"], span.attributes["db.operation.name"]) == ("sqlite", "INSERT")
    telemetry.assert_no_leak("529.982.247-25")


def test_cursors_factories_and_types_stay_what_they_were(telemetry):
    class Mine(sqlite3.Connection):
        pass

    class MyCursor(sqlite3.Cursor):
        pass

    connection = sqlite3.connect(":memory:", factory=Mine)
    cursor = connection.cursor(MyCursor)

    assert isinstance(connection, Mine)
    assert isinstance(cursor, MyCursor)
    assert cursor.execute("select 1") is cursor
    with connection:
        connection.executescript("create table t(a); insert into t values (1);")
    assert connection.execute("select a from t").fetchone() == (1,)


def test_an_error_is_told_and_raised(telemetry):
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("SELECT * FROM nowhere")

    span = telemetry.span("SELECT nowhere")
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "sqlite3.OperationalError")


def test_the_duration_is_measured_per_operation(telemetry):
    connection = sqlite3.connect(":memory:")
    for _ in range(3):
        connection.execute("select 1")

    (point,) = telemetry.metrics["db.client.operation.duration"].points
    assert (point.count, point.attributes["db.operation.name"]) == (3, "SELECT")


def test_the_correlation_id_is_in_the_statement_when_switched_on():
    seen = []
    with capture(sql_comment=True), chegou_otel.use_correlation_id("sql-0002"):
        connection = sqlite3.connect(":memory:")
        connection.set_trace_callback(seen.append)
        connection.execute("select 1;")

    assert seen == ["select 1 /*correlation_id='sql-0002'*/"]


def test_a_connection_outlives_shutdown(telemetry):
    connection = sqlite3.connect(":memory:")
    telemetry.telemetry.shutdown()
    telemetry.clear()

    assert connection.execute("select 1").fetchone() == (1,)
    assert telemetry.spans == []
