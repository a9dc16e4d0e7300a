"""Which keys are secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chegou_otel.redaction import Redactor
from tests.redaction.strategies import HARMLESS_KEYS, KEYS

SECRET = [
    *KEYS, "PASSWORD", "password1", "new_password2", "oldpassword", "userPassword", "passwd", "pwd", "db_pwd", "user_pass", "passphrase", "pass-phrase",
    "senha", "senha_nova", "novaSenha", "secret", "SECRET_KEY", "client-secret", "client_secret", "token", "accessToken", "access_token", "id_token",
    "csrfmiddlewaretoken", "refresh_tokens", "X-CSRFToken", "X-Amz-Security-Token", "token_value", "cookie", "Set-Cookie", "cookies", "authorization",
    "Proxy-Authorization", "HTTP_AUTHORIZATION", "http.request.header.authorization", "api_key", "apikey", "APIKey", "x-api-key", "private_key",
    "AWSAccessKeyId", "aws_secret_access_key", "encryption_key", "sessionid", "session_id", "JSESSIONID", "PHPSESSID", "sid", "sig", "X-Amz-Signature",
    "cpf", "CPF", "cpfCliente", "cpf2", "cnpj", "cnpj_emitente", "card_number", "cardNumber", "credit_card", "numero_cartao", "cvv", "cvc", "security_code",
    "jwt", "otp", "pin", "user_pin", "credentials", "credencial", "auth", "x-auth", "saml_response", "SAMLResponse", "code_verifier", "chave_api", "chavePix",
    "user[password]", "deep.nested.password", "1password", "passwords",
]  # fmt: skip
HARMLESS = [
    *HARMLESS_KEYS, "", "tokens", "max_tokens", "token_type", "token_count", "password_length", "password_changed", "password_changed_at", "cookie_name",
    "session_cookie_age", "csrf_cookie_name", "key", "cache.key", "public_key", "primary_key", "keys", "pass_rate", "passed", "bypass", "passagem", "compass",
    "auth_backend", "authenticated", "author_id", "authors", "resenha", "desenha", "secretaria", "segredos_count", "tokenizer", "cookieless", "pinned", "spin",
    "signal", "design", "http.route", "user.id", "db.query.text", "messaging.message.id", "url.path", "session", "card", "cartorio", "status_code", "code",
]  # fmt: skip


@pytest.mark.parametrize("key", SECRET)
def test_secret(key):
    assert Redactor().is_secret_key(key)


@pytest.mark.parametrize("key", HARMLESS)
def test_harmless(key):
    assert not Redactor().is_secret_key(key)


@given(st.sampled_from(SECRET))
def test_case_and_separators_do_not_matter(key):
    redactor = Redactor()
    shouted = key.upper() if key.islower() else key
    for variant in (shouted, f"x_{key}", key.replace("_", "-"), key.replace("_", ".")):
        assert redactor.is_secret_key(variant)


def test_a_key_of_the_users_is_secret_in_every_spelling():
    redactor = Redactor(keys=["X-Partner-Id"])
    for key in ("X-Partner-Id", "x_partner_id", "xPartnerId", "http.request.header.x-partner-id", "xpartnerid"):
        assert redactor.is_secret_key(key)
    assert not redactor.is_secret_key("partner_id")
    assert redactor.text("sent x-partner-id: 4711 to them") == "sent x-partner-id: [redacted] to them"


def test_an_allowed_key_is_not_secret_and_nothing_else_is_allowed():
    redactor = Redactor(allow_keys=["page_token"])
    assert not redactor.is_secret_key("page_token")
    assert not redactor.is_secret_key("pageToken")
    assert redactor.is_secret_key("token")
    assert redactor.text("page_token=abc token=def") == "page_token=abc token=[redacted]"


@pytest.mark.parametrize("key", ["", "--", 5, None])
def test_a_key_that_is_none_is_refused_by_name(key):
    with pytest.raises(ValueError, match=f"keys: {key!r}"):
        Redactor(keys=[key])
    with pytest.raises(ValueError, match=f"allow_keys: {key!r}"):
        Redactor(allow_keys=[key])


def test_the_cache_of_keys_stays_small():
    """Keys may come from outside: a client can invent new ones for ever."""
    redactor = Redactor()
    for number in range(20_000):
        redactor.is_secret_key(f"key-{number}")
        redactor.text(f"token{number}: x")
    assert len(redactor._keys) <= 4_096
    assert len(redactor._text_keys) <= 4_096


@given(st.text())
def test_any_key_is_judged(key):
    assert Redactor().is_secret_key(key) in (True, False)
