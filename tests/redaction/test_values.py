"""Attribute values: the key decides first, then the type. And the messages of exceptions."""

import enum
import sqlite3
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chegou_otel.redaction import Redactor
from tests.redaction import strategies as near

redactor = Redactor()
M = "[redacted]"


def test_the_key_decides_first():
    assert redactor.value("db.password", "x") == M
    assert redactor.value("cpf", ["1", "2"]) == M
    assert redactor.value("tokens", ["1"]) == ["1"]
    assert redactor.value("auth", b"x") == M
    assert redactor.value("password", "") == ""


@pytest.mark.parametrize("value", [None, True, False, 0, 5, 1.5, float("nan")])
def test_numbers_booleans_and_none_are_left_alone(value):
    assert redactor.value("password", value) is value
    assert redactor.value("x", value) is value


def test_clean_text_is_the_same_object():
    text = "enviado"
    assert redactor.value("state", text) is text


def test_inside_of_sequences_and_mappings():
    value = {"a": {"password": "x", "cpf": 52998224725, "n": 5}, "b": ["token=y", 3, None, ("529.982.247-25",)], 7: {"t"}, "ok": True}
    assert redactor.value("body", value) == {
        "a": {"password": M, "cpf": M, "n": 5},
        "b": [f"token={M}", 3, None, [M]],
        7: ["t"],
        "ok": True,
    }
    assert value["a"]["password"] == "x"
    assert redactor.value("body", {"529.982.247-25": 2}) == {M: 2}
    assert redactor.value("body", OrderedDict(password="x")) == {"password": M}


def test_depth_and_breadth_are_bounded():
    deep = {"password": "S"}
    for _ in range(50):
        deep = {"x": deep}
    loop = []
    loop.append(loop)
    assert "S" not in repr(redactor.value("x", deep))
    assert repr(redactor.value("x", loop)).count("[") < 20
    assert len(redactor.value("x", list(range(5_000)))) == 1_000


def test_kinds_that_a_key_tells():
    assert redactor.value("url.full", "https://u:p@h/?token=a") == "https://REDACTED@h/?token=REDACTED"
    assert redactor.value("url.query", "token=a&b=1") == "token=REDACTED&b=1"
    assert redactor.value("db.query.text", "SELECT 'a'") == "SELECT ?"
    assert redactor.value("db.statement", '{"password": "x"}') == f'{{"password": "{M}"}}'
    assert redactor.value("exception.message", "Key (a)=(joao) already exists.") == f"Key (a)=({M}) already exists."
    assert redactor.value("http.request.header.authorization", ["Bearer x"]) == M
    assert redactor.value("http.request.header.referer", ["/?token=a"]) == ["/?token=REDACTED"]
    assert redactor.value("http.request.header.accept", ["a"]) == ["a"]


def test_kinds_of_text():
    class Word(str):
        __slots__ = ()

    class State(enum.StrEnum):
        OPEN = "token=x"

    assert redactor.value("x", Word("token=x")) == f"token={M}"
    assert redactor.value("x", State.OPEN) == f"token={M}"
    assert redactor.value("x", b"token=x") == f"token={M}".encode()
    assert redactor.value("x", clean := b"\xff\x00") is clean
    thing = object()
    assert redactor.value("x", thing) is thing


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | near.any_text | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(near.any_text | st.integers(), inner, max_size=3) | st.tuples(inner),
    max_leaves=12,
)


@given(near.any_text, json_like)
@settings(max_examples=300, deadline=None)
def test_anything_is_no_error_and_twice_is_once(key, value):
    once = redactor.value(key, value)
    assert repr(redactor.value(key, once)) == repr(once)


MESSAGES = {
    'duplicate key value violates unique constraint "c"\nDETAIL:  Key (cpf)=(529.982.247-26) already exists.\n': (
        f'duplicate key value violates unique constraint "c"\nDETAIL:  Key (cpf)=({M}) already exists.\n'
    ),
    "DETAIL:  Key (email)=(joao@x.com) already exists.": f"DETAIL:  Key (email)=({M}) already exists.",
    "DETAIL:  Key (a, b)=(x (y), z) already exists.": f"DETAIL:  Key (a, b)=({M}) already exists.",
    'DETAIL:  Key (order_id)=(5) is not present in table "o".': 'DETAIL:  Key (order_id)=(5) is not present in table "o".',
    "DETAIL:  Failing row contains (1, joao, null).": f"DETAIL:  Failing row contains ({M})",
    "invalid input syntax for type integer: \"joao\"\nLINE 1: SELECT 'joao'::int\n               ^": (
        f'invalid input syntax for type integer: "{M}"\nLINE 1: SELECT ?::int'
    ),
    "CONTEXT:  unnamed portal with parameters: $1 = 'joao', $2 = 'x'": f"CONTEXT:  unnamed portal with parameters: $1 = '{M}', $2 = '{M}'",
    "(1062, \"Duplicate entry 'joao@x.com' for key 'users.email'\")": f"(1062, \"Duplicate entry '{M}' for key 'users.email'\")",
    "Incorrect integer value: 'joao' for column 'a' at row 1": f"Incorrect integer value: '{M}' for column 'a' at row 1",
    "[SQL: INSERT INTO t VALUES (%s)]\n[parameters: ('joao',)]": f"[SQL: INSERT INTO t VALUES (%s)]\n[parameters: {M}]",
    'connection to "postgres://u:p@h/db" failed: password=x': f'connection to "postgres://REDACTED@h/db" failed: password={M}',
    "UNIQUE constraint failed: t.cpf": "UNIQUE constraint failed: t.cpf",
    "Order matching query does not exist.": "Order matching query does not exist.",
}


@pytest.mark.parametrize(("message", "expected"), MESSAGES.items(), ids=[case[:30] for case in MESSAGES])
def test_messages_of_exceptions(message, expected):
    assert redactor.exception_message(message) == expected


@given(near.any_text)
@settings(max_examples=300, deadline=None)
def test_any_message_is_no_error_and_twice_is_once(message):
    once = redactor.exception_message(message)
    assert redactor.exception_message(once) == once


def test_a_message_of_a_real_database():
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT password='hunter2' FROM missing")
    assert redactor.exception_message(str(caught.value)) == str(caught.value)
    connection.close()
