"""SQL keeps its shape and loses its literals."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chegou_otel.redaction import Redactor
from tests.redaction import strategies as near

redactor = Redactor()
CASES = {
    "SELECT 'a''b', 1.5, .5, 1e-3, 0xFF, -3": "SELECT ?, ?, ?, ?, ?, -?",
    "SELECT t1.c2, col_3 FROM t4 LIMIT 21": "SELECT t1.c2, col_3 FROM t4 LIMIT ?",
    "WHERE a = %s AND b = $1 AND c = :name AND d = ? AND e = %(cpf)s AND f = @x": "WHERE a = %s AND b = $1 AND c = :name AND d = ? AND e = %(cpf)s AND f = @x",
    "SELECT $$secret$$, $a$it's$a$, x": "SELECT ?, ?, x",
    "SELECT $$secret": "SELECT ?",
    "SELECT E'a\\'b', N'x', x'ff', U&'d', _utf8'x'": "SELECT ?, ?, ?, ?, ?",
    "SELECT 'abc": "SELECT ?",
    'SELECT "a\'b", `c\'d`, "1"': 'SELECT "a\'b", `c\'d`, "1"',
    "SELECT 'C:\\', 'secret'": "SELECT ? …",
    "SELECT 'it\\'s', secret": "SELECT ? …",
    "SELECT a::int, '{1,2}'::int[], x[1]": "SELECT a::int, ?::int[], x[?]",
    "SELECT 1 -- secret\nFROM t /* joao's */ WHERE/**/b": "SELECT ? \nFROM t WHERE b",
    "SELECT 1 /* never closed": "SELECT ?",
    "a IN (%s, %s, %s) AND b IN (1,2) AND c NOT IN ('x') and d in ($1, $2)": "a IN (%s) AND b IN (?) AND c NOT IN (?) and d in ($1)",
    "INSERT INTO t (a, b) VALUES (%s, %s), (%s, %s), (%s, DEFAULT)": "INSERT INTO t (a, b) VALUES (%s, %s)",
    "INSERT INTO t VALUES ('a', 1), ('b', 2)": "INSERT INTO t VALUES (?, ?)",
    "(a, b) IN ((%s, %s), (%s, %s))": "(a, b) IN ((%s, %s))",
    "SELECT f(%s, %s), g(1, 2)": "SELECT f(%s, %s), g(?, ?)",
    "INTERVAL '1 day' + DATE '2020-01-01'": "INTERVAL ? + DATE ?",
    'SAVEPOINT "s140_x1"': 'SAVEPOINT "s140_x1"',
    'WHERE "user"."password" = "u"."x" AND "token" = %s': 'WHERE "user"."password" = "u"."x" AND "token" = %s',
    "ALTER USER x PASSWORD 'y'": "ALTER USER x PASSWORD ?",
    "SELECT 'ação', ção1": "SELECT ?, ção1",
    "": "",
}


@pytest.mark.parametrize(("statement", "expected"), CASES.items(), ids=[case[:40] for case in CASES])
def test_literals_go(statement, expected):
    assert redactor.sql(statement) == expected


def test_the_number_of_placeholders_does_not_make_a_new_statement():
    texts = {redactor.sql(f"SELECT a FROM t WHERE id IN ({', '.join(['%s'] * count)})") for count in (1, 2, 50, 1000)}
    texts |= {redactor.sql(f"SELECT a FROM t WHERE id IN ({', '.join(['%s'] * 3)})")}
    assert len(texts) == 1


def test_double_quotes_are_strings_in_mysql():
    statement = 'SELECT "secret", `a"b` FROM t WHERE x = "it""s" AND y = 1'
    assert redactor.sql(statement, double_quoted_strings=True) == 'SELECT ?, `a"b` FROM t WHERE x = ? AND y = ?'
    assert redactor.sql(statement) == 'SELECT "secret", `a"b` FROM t WHERE x = "it""s" AND y = ?'


def test_the_two_readings_of_double_quotes_do_not_share_a_cache():
    own = Redactor()
    assert own.sql('"a" secret', double_quoted_strings=True) == "? secret"
    assert own.sql('""a" secret') != "? secret"
    assert own.sql('x"', double_quoted_strings=True) == "x?"
    assert own.sql('"x"') == '"x"'
    assert own.sql('"x"', double_quoted_strings=True) == "?"


def test_a_secret_in_an_identifier_is_known_by_its_shape():
    assert redactor.sql('SELECT "529.982.247-25"') == 'SELECT "[redacted]"'


@given(
    near.prose.filter(lambda text: "'" not in text),
    st.text("Sxyz' -/*$\"`;,()0123456789%?:\n", min_size=1, max_size=30).map(lambda text: f"S{text}S"),
)
@settings(max_examples=500, deadline=None)
def test_a_planted_literal_disappears(before, secret):
    """Whatever is in it: quotes, comments, dollars."""
    literal = secret.replace("'", "''")
    for text in (
        f"select {before.lower()} '{literal}' from t where a = 5",
        f"select $q${secret}$q$, b",
        f"/* {secret.replace('*/', '')} */ select b",
    ):
        clean = redactor.sql(text)
        assert "S" not in clean


@given(near.any_text)
@settings(max_examples=500, deadline=None)
def test_garbage_is_no_error_and_twice_is_once(statement):
    for mysql in (False, True):
        once = redactor.sql(statement, double_quoted_strings=mysql)
        assert redactor.sql(once, double_quoted_strings=mysql) == once


def test_a_known_statement_is_not_read_again_and_the_cache_stays_small():
    own = Redactor()
    assert own.sql("SELECT 'a'") is own.sql("SELECT 'a'")
    for number in range(10_000):
        own.sql(f"SELECT {number}, '{'x' * 500}'")
    cache = own._statements[False]
    assert len(cache) <= 2_048
    assert sum(map(len, cache.young)) + sum(map(len, cache._old)) <= 2_097_152
