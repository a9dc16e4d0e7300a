"""docs/redaction.md shows what really happens."""

import re
from pathlib import Path

import pytest

from chegou_otel.redaction import Redactor

DOC = (Path(__file__).parents[2] / "docs" / "redaction.md").read_text(encoding="utf-8")
EXAMPLES = [re.split(r" {2,}", line) for line in DOC.split("```")[1].strip().splitlines()]
REDACTOR = Redactor()


@pytest.mark.parametrize(("before", "after"), EXAMPLES)
def test_the_examples_hold(before, after):
    hide = REDACTOR.sql if before.startswith("SELECT") else REDACTOR.url if before.startswith("https") else REDACTOR.exception_message
    assert hide(before) == after


@pytest.mark.parametrize(
    "key",
    [
        "password1",
        "oldpassword",
        "cpf_cliente",
        "minhasenha",
        "client_secret",
        "csrftoken",
        "Set-Cookie",
        "PHPSESSID",
        "aws_credentials",
        "db_pass",
        "x-auth",
        "AWSAccessKeyId",
        "cardNumber",
        "chavePix",
    ],
)
def test_the_secret_keys_it_names(key):
    assert f"`{key}`" in DOC
    assert REDACTOR.is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "resenha",
        "desenha",
        "secretary",
        "tokenizer",
        "passenger",
        "pass_rate",
        "author",
        "auth_backend",
        "token_count",
        "password_changed_at",
        "cookie_name",
        "tokens",
        "max_tokens",
        "gen_ai.usage.input_tokens",
    ],
)
def test_the_harmless_keys_it_names(key):
    assert f"`{key}`" in DOC
    assert not REDACTOR.is_secret_key(key)


@pytest.mark.parametrize(
    "text", ["pin=1234", "sid=abc", "jwt=abc", "card_number=4", "security_code=123", "note=hunter2", "my password is hunter2"]
)
def test_the_limits_it_admits(text):
    """When one of these is found some day, the page has to say so."""
    assert REDACTOR.text(text) == text


def test_a_key_of_ones_own_counts_in_text():
    assert Redactor(keys=["pin"]).text("pin=1234") == "pin=[redacted]"
