"""The pre-filter never says "clean" of a text that the patterns would change."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chegou_otel.redaction import Redactor, digits, pairs, prefilter, shapes
from tests.redaction import strategies as near

MARK = "[redacted]"
OWN = Redactor(keys=["matricula", "Número de Conta"])
GROUPS = {
    prefilter.PAIRS: lambda text: pairs.hide_pairs(text, OWN._is_secret_in_text, MARK),
    prefilter.TOKENS: lambda text: shapes.hide_tokens(text, MARK),
    prefilter.NUMBERS: lambda text: digits.hide_numbers(text, MARK),
    prefilter.USERINFO: shapes.hide_userinfo,
    prefilter.AUTHORIZATION: lambda text: shapes.hide_authorization(text, MARK),
    prefilter.PEM: lambda text: shapes.hide_pem(text, MARK),
    prefilter.EMAILS: lambda text: shapes.hide_emails(text, MARK),
}


def test_every_group_is_looked_for():
    assert sum(GROUPS) == prefilter.ALL


@given(near.any_text)
@settings(max_examples=1500, deadline=None)
@example("matricula=1")
@example("N\u00daMERO_DE_CONTA: 5")
@example("%3D12ABC34501DE35")
@example("\\n12ABC34501DE35")
@example("12345678/0001-95")
@example("github_pat_passwordpassword")
def test_what_is_not_named_changes_nothing(text):
    """Group by group, which is stronger than for all of them together."""
    found = prefilter.look(text, OWN._roots)
    for group, hide in GROUPS.items():
        if not found & group:
            assert hide(text) == text


@given(before=near.prose, secret=near.numbers | near.tokens, after=near.prose)
@settings(max_examples=400, deadline=None)
def test_a_planted_secret_is_noticed(before, secret, after):
    assert prefilter.look(f"{before} {secret} {after}", ())


@given(st.sampled_from(near.KEYS))
def test_every_key_is_noticed_in_text(key):
    assert prefilter.look(f"{key}=x", ()) & prefilter.PAIRS


@pytest.mark.parametrize(
    "text",
    [
        "Pedido 1234 criado em 35 ms por joao",
        "GET /api/v1/pedidos/1234/ 200 in 35 ms, 4 queries",
        '"GET /api/v1/pedidos/1234/ HTTP/1.1" 200 5316',
        'SELECT "orders_order"."id", "orders_order"."created_at" FROM "orders_order" WHERE "orders_order"."id" = %s LIMIT 21',
        "/var/www/app/releases/20261122/static/js/app.bundle.js",
        "status=200 user=joao took=35ms region=sa-east-1 attempt 1/3",
        "2026-11-22 21:34:28,123 INFO responsabilidade da transportadora",
        "0192f8a1-7c3e-7def-8123-456789abcdef",
        "Erro ao processar: 'NoneType' object has no attribute 'itens'",
    ],
)
def test_ordinary_texts_stay_on_the_fast_path(text):
    """Short numbers, dates, paths, SQL, IDs: nothing is looked at twice."""
    assert prefilter.look(text, ()) == 0
    assert Redactor().text(text) is text
