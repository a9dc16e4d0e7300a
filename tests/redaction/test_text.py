"""Free text: secrets go, the rest stays as it was."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chegou_otel.redaction import Redactor
from chegou_otel.redaction.digits import is_card, is_cnpj, is_cpf
from tests.redaction import strategies as near

redactor = Redactor()
M = "[redacted]"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----"

CASES = {
    # key=value and its relatives
    "password=hunter2": f"password={M}",
    "login password=hunter2 user=joao": f"login password={M} user=joao",
    "password = hunter2": f"password = {M}",
    "password: hunter2": f"password: {M}",
    "PASSWORD=hunter2;Server=db": f"PASSWORD={M};Server=db",
    "a=1&token=abc&b=2": f"a=1&token={M}&b=2",
    "token=abc,status=200": f"token={M},status=200",
    "token=ab,cd status=200": f"token={M} status=200",
    "f(password=abc)": f"f(password={M})",
    "error: senha=abc": f"error: senha={M}",
    "{'password': 'hunter2', 'a': 1}": f"{{'password': '{M}', 'a': 1}}",
    '{"password": "hunt\\"er2", "a": 1}': f'{{"password": "{M}", "a": 1}}',
    '{"password":"x","cpf":52998224726}': f'{{"password":"{M}","cpf":{M}}}',
    '"{\\"password\\": \\"hunter2\\", \\"a\\": 1}"': f'"{{\\"password\\": \\"{M}\\", \\"a\\": 1}}"',
    "{'tokens': 3, 'access_tokens': ['a', 'b'], 'c': 1}": f"{{'tokens': 3, 'access_tokens': {M}, 'c': 1}}",
    "{'credentials': {'user': {'x': 1}, 'y': 2}, 'c': 1}": f"{{'credentials': {M}, 'c': 1}}",
    'data["password"] = "x"': f'data["password"] = "{M}"',
    "user[password]=x": f"user[password]={M}",
    "password=b'abc'": f"password=b'{M}'",
    "password => 'abc'": f"password => '{M}'",
    "[(b'cookie', b'sessionid=abc; a=b'), (b'host', b'x')]": f"[(b'cookie', b'{M}'), (b'host', b'x')]",
    "('Authorization', 'Token abc')": f"('Authorization', '{M}')",
    "Authorization: Token abc def\nHost: x": f"Authorization: {M}\nHost: x",
    "Cookie: a=b; c=d\nHost: x": f"Cookie: {M}\nHost: x",
    "curl -H 'Authorization: Token a b' http://x": f"curl -H 'Authorization: {M}' http://x",
    "mysql --password hunter2 -h db": f"mysql --password {M} -h db",
    "mysql --password=hunter2 -h db": f"mysql --password={M} -h db",
    "<senha>a b</senha><x>1</x>": f"<senha>{M}</senha><x>1</x>",
    "<ns:senha>a b</ns:senha>": f"<ns:senha>{M}</ns:senha>",
    "Key (cpf)=(529.982.247-26) already exists.": f"Key (cpf)=({M}) already exists.",
    "Key (nome, cpf, a)=(joao, 5299822472, 1) already": f"Key (nome, cpf, a)=({M}) already",
    "password='abc": f"password='{M}",
    "senha='it''s' x": f"senha='{M}' x",
    # shapes
    "sent Bearer abcDEF123 ok": f"sent Bearer {M} ok",
    "BEARER abc-def-ghi": f"BEARER {M}",
    "basic dXNlcjpwYXNz x": f"basic {M} x",
    f"got {JWT}.": f"got {M}",
    f"a {PEM} b": f"a {M} b",
    PEM[:50]: M,
    repr(PEM): f"'{M}'",
    "postgres://joao:s3cret@db:5432/x failed": "postgres://REDACTED@db:5432/x failed",
    "redis://:p/w@h:6379/0": "redis://REDACTED@h:6379/0",
    "amqp://u:p@ss@h/": "amqp://REDACTED@h/",
    "key AKIAIOSFODNN7EXAMPLE used": f"key {M} used",
    "ghp_0123456789abcdefghij0123456789abcdef": M,
    # numbers
    "CPF 529.982.247-25 ok": f"CPF {M} ok",
    "52998224725": M,
    "529982247-25": M,
    "529 982 247 25": M,
    "user_52998224725": f"user_{M}",
    "cpf%3D52998224725": f"cpf%3D{M}",
    "11.222.333/0001-81": M,
    "11222333000181": M,
    "11222333/0001-81": M,
    "12.ABC.345/01DE-35": M,
    "CNPJ 12ABC34501DE35.": f"CNPJ {M}.",
    "4111111111111111": M,
    "paid with 4111 1111 1111 1111": f"paid with {M}",
    "3782-822463-10005": M,
    "01234567890.01234567890": f"{M}.{M}",
    "1.529.982.247-25": f"1.{M}",
    "1234 4111 1111 1111 1111": f"1234 {M}",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items(), ids=[case[:40] for case in CASES])
def test_what_is_hidden(text, expected):
    assert redactor.text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "token_count=3 tokens: 5 passenger=joao author: ana",
        "529.982.247-26",  # wrong check digits: an order number, a serial number
        "11.222.333/0001-82",
        "4111 1111 1111 1112",
        "11111111111",  # holds by arithmetic, is never issued
        "took 0.4111111111111111 s",
        "1763847268123 1763847268 20261122213428",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736 span 00f067aa0ba902b7",
        "0192f8a1-7c3e-7def-8123-456789012345",
        "192.168.100.101 10.0.0.1:8080 ::1",
        "Bearer authentication failed, basic authentication too",
        "password=%s token=? senha=%(senha)s secret=$1 token: None, password=null",
        "if token > 5: pass",
        "https://example.com/a@b http://h:8080/x@y git@github.com:a/b.git",
        "joao@example.com wrote",
        "password changed",
    ],
)
def test_what_stays(text):
    assert redactor.text(text) == text


@given(near.any_text)
@settings(max_examples=1000, deadline=None)
def test_twice_is_once(text):
    once = redactor.text(text)
    assert redactor.text(once) == once


@given(before=near.prose, secret=near.numbers | near.tokens, after=near.prose)
@settings(max_examples=500, deadline=None)
def test_a_planted_shape_disappears(before, secret, after):
    for text in (
        f"{before} {secret} {after}",
        f"{before} ({secret}), {after}",
        f"{before}\n{secret}\n{after}",
        f'{before} "x": "{secret}" {after}',
    ):
        assert secret not in redactor.text(text)


@given(key=st.sampled_from(near.KEYS), secret=near.secret_values, before=near.prose, after=near.prose)
@settings(max_examples=500, deadline=None)
def test_a_planted_value_disappears(key, secret, before, after):
    payload = {"a": 1, key: secret, "z": [1, 2]}
    for text in (
        f"{before} {key}={secret} {after}", f"{before} {key}: {secret}\n{after}", f"{before} {payload} {after}", f"{before} {json.dumps(payload)} {after}",
        f"{before} {json.dumps(json.dumps(payload))} {after}", f"{before} --{key} {secret} {after}", f"{before} <{key}>{secret}</{key}> {after}",
        f"{before} Key ({key})=({secret}) {after}", f"/x?a=1&{key}={secret}&b=2", f"{before} {list(payload.items())} {after}",
    ):  # fmt: skip
        assert secret not in redactor.text(text).replace(key, "").replace(before, "").replace(after, "")


@given(st.text("abc\\\"'\n ,:{}[]", min_size=3, max_size=12))
@settings(max_examples=500, deadline=None)
@example("a'b\"c\\")
def test_quoting_does_not_save_a_value(secret):
    """repr() and JSON escape in ways of their own; what comes behind is still read."""
    value = f"S{secret}S"
    for text in (repr({"password": value, "b": "tail"}), json.dumps({"password": value, "b": "tail"})):
        clean = redactor.text(text)
        assert "S" not in clean
        assert "tail" in clean


def test_json_stays_json():
    payload = {"user": "joao", "password": 'x"y', "cpf": "529.982.247-25", "n": [1, {"token": "t"}], "ok": True}
    assert json.loads(redactor.text(json.dumps(payload))) == {"user": "joao", "password": M, "cpf": M, "n": [1, {"token": M}], "ok": True}


@given(near.cpfs)
def test_a_wrong_check_digit_stays(cpf):
    wrong = cpf[:-1] + str((int(cpf[-1]) + 1) % 10)
    assert is_cpf(cpf)
    assert not is_cpf(wrong)
    assert redactor.text(f"pedido {near.formatted_cpf(wrong)}") == f"pedido {near.formatted_cpf(wrong)}"


def test_known_numbers():
    assert is_cpf("52998224725")
    assert is_cnpj("11222333000181")
    assert is_cnpj("12ABC34501DE35")  # the example in the specification of the new form
    for number in ("4111111111111111", "378282246310005", "5555555555554444", "6011111111111117", "30569309025904", "2223003122003222"):
        assert is_card(number)


def test_mail_addresses_go_when_asked():
    text = "joao.silva+x@example.com.br wrote"
    assert redactor.text(text) == text
    assert Redactor(emails=True).text(text) == f"{M} wrote"


def test_a_pattern_of_the_users():
    own = Redactor(patterns=[r"PED-\d{4}"])
    assert own.text("criado PED-1234 e PED-5678") == f"criado {M} e {M}"
    assert own.text("criado") == "criado"
    assert own.value("x", ["PED-1234"]) == [M]
    assert own.url("http://h/PED-1234?a=PED-1234") == f"http://h/{M}?a=REDACTED"


@given(near.any_text)
def test_a_greedy_pattern_of_the_users_does_not_grow_the_text(text):
    """It may even match the placeholder."""
    own = Redactor(patterns=[r"\w+"])
    once = own.text(text)
    assert own.text(once) == once


@pytest.mark.parametrize("pattern", ["(", "x*", "", b"x", 5, "a{1,"])
def test_an_unusable_pattern_is_refused_by_name(pattern):
    if pattern == "a{1,":
        assert Redactor(patterns=[pattern]).text("a{1,") == M
        return
    with pytest.raises(ValueError, match="patterns: "):
        Redactor(patterns=[pattern])


def test_switched_off_it_changes_nothing():
    off = Redactor(enabled=False)
    for text in CASES:
        assert off.text(text) is text
        assert off.url(text) is text
        assert off.sql(text) is text
        assert off.value("password", text) is text
        assert off.header("Cookie", text) is text
        assert off.exception_message(text) is text
    assert not off.is_secret_key("password")
