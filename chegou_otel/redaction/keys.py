"""Which keys hold secrets. A key is cut into words (``X-Api-Key``, ``userPassword``, ``db.password``), then the words are judged."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Secret wherever they are inside a word, so ``password1``, ``oldpassword`` and ``cpfcliente`` count too. No other word contains them.
_INSIDE: Final = ("password", "passwd", "passphrase", "passcode", "cpf", "cnpj", "apikey", "secretkey", "privatekey", "accesskey")
#: Portuguese "senha" inside a word, but not in resenha (review) and desenha (draws).
_SENHA: Final = re.compile(r"(?<![rd]e)senha")
#: Secret as a word, or at its end: ``clientsecret``, ``csrfmiddlewaretoken``, ``phpsessid``.
_ENDINGS: Final = ("secret", "token", "authorization", "cookie", "pwd", "sessid", "sessionid", "sessionkey")
# fmt: off
#: Secret as a word of its own, anywhere in the key.
_WORDS: Final = frozenset((
    "secrets", "credential", "credentials", "credencial", "credenciais", "cookies", "segredo", "cvv", "cvc", "jwt", "otp", "totp",
    "bearer",
))
#: Secret only as the last word: ``user_pass`` but not ``pass_rate``, ``x-auth`` but not ``auth_backend``.
_LAST: Final = frozenset(("pass", "auth", "pin", "sid", "sig", "signature"))
#: Secret as neighbours. (``tokens`` alone are what language models count.)
_PAIRS: Final = frozenset((
    "access key", "access keys", "account key", "api key", "api keys", "auth key", "encryption key", "master key", "private key",
    "session id", "session key", "shared key", "signing key", "chave api", "chave pix", "chave privada", "chave secreta",
    "access tokens", "api tokens", "auth tokens", "refresh tokens", "pass phrase", "pass word",
    "backup codes", "code verifier", "codigo seguranca", "recovery code", "recovery codes", "security code", "verification code",
    "card no", "card number", "cartao credito", "cartao debito", "credit card", "debit card", "numero cartao",
    "client assertion", "saml request", "saml response",
))
#: A key that ends like this tells about a secret and is none: ``token_count``, ``password_changed``, ``cookie_name``.
_ABOUT: Final = frozenset((
    "age", "at", "changed", "count", "counts", "domain", "enabled", "endpoint", "expiration", "expires", "expiry", "httponly", "len",
    "length", "limit", "max", "min", "ms", "name", "names", "path", "policy", "present", "required", "samesite", "seconds", "secure",
    "size", "status", "total", "ttl", "type", "types", "valid",
))
# fmt: on
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN: Final = re.compile(r"[\W_]+")
_LONGEST: Final = 128


def words_of(key: str) -> list[str]:
    """``"X-Api-Key2"`` → ``["x", "api", "key"]``. Digits around a word do not matter."""
    if len(key) > 2 * _LONGEST:
        key = f"{key[:_LONGEST]} {key[-_LONGEST:]}"
    parts = (part.strip("0123456789") for part in _BETWEEN.split(_CAMEL.sub(" ", key).lower()))
    return [part for part in parts if part]


class KeyRules:
    """The built-in rules, and the user's on top of them: allowed keys first, then added ones, then ours."""

    __slots__ = ("_allowed", "_own", "roots")

    def __init__(self, keys: Iterable[str], allow_keys: Iterable[str]) -> None:
        self._own = [_checked(key, "keys") for key in keys]
        self._allowed = {tuple(_checked(key, "allow_keys")) for key in allow_keys}
        #: For the pre-filter: in text, a key of the user's cannot occur without one of these.
        self.roots = tuple(sorted({root for words in self._own if (root := _root(words))}))

    def judge(self, key: str) -> bool:
        words = words_of(key)
        if tuple(words) in self._allowed:
            return False
        return any(_contains(words, own) for own in self._own) or _built_in(words)


def _checked(key: object, where: str) -> list[str]:
    words = words_of(key) if isinstance(key, str) else []
    if not words:
        raise ValueError(f"{where}: {key!r} is no key: give names such as 'matricula' or 'X-Partner-Id'")
    return words


def _root(words: list[str]) -> str:
    """The longest ASCII stretch of the longest word."""
    return max(re.findall(r"[a-z0-9]+", " ".join(words)), key=len, default="")


def _contains(words: list[str], wanted: list[str]) -> bool:
    size = len(wanted)
    return any(words[at : at + size] == wanted for at in range(len(words) - size + 1)) or "".join(wanted) in words


def _built_in(words: list[str]) -> bool:
    if not words or words[-1] in _ABOUT:
        return False
    if words[-1] in _LAST or not _WORDS.isdisjoint(words) or any(f"{one} {two}" in _PAIRS for one, two in pairwise(words)):
        return True
    return any(word.endswith(_ENDINGS) or any(part in word for part in _INSIDE) or _SENHA.search(word) for word in words)
