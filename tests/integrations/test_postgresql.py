"""PostgreSQL by psycopg 3 and psycopg2, against a real server."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import psycopg
import psycopg2
import psycopg2.extras
import pytest

import chegou_otel
from chegou_otel.testing import capture
from tests.redis_server import free_port


def _binaries():
    found = shutil.which("initdb")
    return Path(found).parent if found else next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A real server on a free port; its superuser is ``hub``."""
    binaries = _binaries()
    if binaries is None or os.getuid() == 0:
        reason = "PostgreSQL's servers are not installed" if binaries is None else "PostgreSQL refuses to run as root"
        if os.environ.get("CI") and binaries is None:
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("postgres")
    port = free_port()
    subprocess.run([binaries / "initdb", "-D", folder / "data", "-U", "hub", "-A", "trust", "-N"], check=True, capture_output=True)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run(
        [binaries / "pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start"], check=True, capture_output=True
    )
    yield {"host": "127.0.0.1", "port": port, "user": "hub", "dbname": "postgres"}
    subprocess.run([binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], check=False, capture_output=True)


def by_psycopg(parameters, sql, args=None):
    with psycopg.connect(**parameters) as connection:
        return connection.execute(sql, args).fetchall()


def by_psycopg_async(parameters, sql, args=None):
    async def call():
        async with await psycopg.AsyncConnection.connect(**parameters) as connection:
            return await (await connection.execute(sql, args)).fetchall()

    return asyncio.run(call())


def by_psycopg2(parameters, sql, args=None):
    connection = psycopg2.connect(**parameters)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, args)
            return cursor.fetchall()
    finally:
        connection.close()


DRIVERS = [by_psycopg, by_psycopg_async, by_psycopg2]
every_driver = pytest.mark.parametrize("query", DRIVERS, ids=[driver.__name__[3:] for driver in DRIVERS])


@every_driver
def test_a_statement_is_a_span_with_where_it_went(telemetry, postgres, query):
    with chegou_otel.use_correlation_id("pg-000001"):
        assert query(postgres, "SELECT relname FROM pg_class WHERE relname = %s", ("pg_class",)) == [("pg_class",)]

    span = telemetry.span("SELECT pg_class")
    assert (span.kind, span.correlation_id) == ("CLIENT", "pg-000001")
    told = span.attributes
    assert (told["db.system.name"], told["db.namespace"], told["server.address"], told["server.port"]) == (
        "postgresql",
        "postgres",
        "127.0.0.1",
        postgres["port"],
    )
    assert told["db.query.text"] == "SELECT relname FROM pg_class WHERE relname = %s"


@every_driver
def test_an_error_carries_the_sqlstate_and_no_value(telemetry, postgres, query):
    with pytest.raises(Exception) as raised:
        query(postgres, "SELECT 1 FROM nowhere WHERE cpf = '529.982.247-25'")

    assert type(raised.value).__module__.startswith("psycopg")
    span = telemetry.span("SELECT nowhere")
    assert (span.status, span.attributes["db.response.status_code"]) == ("ERROR", "42P01")
    telemetry.assert_no_leak("529.982.247-25")


@every_driver
def test_pg_stat_activity_shows_the_correlation_id_when_switched_on(postgres, query):
    with capture(sql_comment=True), chegou_otel.use_correlation_id("pg-000002"):
        found = query(postgres, "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")

    assert "/*correlation_id='pg-000002'*/" in found[0][0]


def test_psycopg2_s_factories_stay_what_they_are(telemetry, postgres):
    connection = psycopg2.connect(**postgres, cursor_factory=psycopg2.extras.RealDictCursor)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 AS one")
            assert cursor.fetchone()["one"] == 1
            assert isinstance(cursor, psycopg2.extras.RealDictCursor)
        with connection.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor) as cursor:
            cursor.execute("SELECT 1 AS one")
            assert cursor.fetchone().one == 1
    finally:
        connection.close()
    assert telemetry.span_names() == ["SELECT", "SELECT"]


def test_server_side_cursors_and_composed_statements(telemetry, postgres):
    from psycopg import sql

    with psycopg.connect(**postgres) as connection:
        with connection.cursor("named") as cursor:
            cursor.execute("SELECT generate_series(1, 3)")
            assert cursor.fetchall() == [(1,), (2,), (3,)]
        connection.execute(sql.SQL("SELECT {}").format(sql.Literal("hidden"))).fetchall()

    assert len([name for name in telemetry.span_names() if name == "SELECT"]) == 2
    telemetry.assert_no_leak("hidden")
