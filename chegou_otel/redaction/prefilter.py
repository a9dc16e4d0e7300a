"""The cheap look that nearly every text gets: which groups of patterns could match at all?

No false negatives: a group that is not named here would change nothing; a property test proves it. ``in`` on ``str`` runs at the speed
of ``memchr``; folding letters into classes first lets one search stand for several words.
"""

from __future__ import annotations

from typing import Final

PAIRS: Final = 1
TOKENS: Final = 2
NUMBERS: Final = 4
USERINFO: Final = 8
AUTHORIZATION: Final = 16
PEM: Final = 32
EMAILS: Final = 64


def _letters() -> bytes:
    """Lower case; digits are ``0``. Letters of a group are one, so that ``pf`` stands for cpf, cnpj, pwd and cvv."""
    table = list(range(256))
    for code in range(128):
        letter = chr(code).lower()
        table[code] = 48 if letter.isdigit() else ord(letter)
    for group in ("ei", "td", "fvwj", "pc"):
        for letter in group:
            table[ord(letter)] = table[ord(letter.upper())] = ord(group[0])
    return bytes(table)


_FOLD: Final = _letters()
#: Letters and digits are all ``0``: long runs of them are tokens or numbers.
_RUNS: Final = bytes(48 if chr(code).isalnum() and code < 128 else code for code in range(256))  # noqa: PLR2004


def fold(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").translate(_FOLD).decode("latin-1")


#: A built-in secret key in text holds one of these.
_KEY_ROOTS: Final = tuple(
    map(fold, ("cpf", "pass", "token", "secret", "auth", "key", "senha", "sess", "cart", "sig", "chave", "seg", "otp"))
)
_, _PASS, _, _, _AUTH, _KEY, _SENHA, _SESS, _CART, _SIG, _CHAVE, _SEG, _OTP = _KEY_ROOTS
_BEARER, _BASIC = fold("bearer"), fold("basic")
_OKE, _CRET, _SKEY, _GLPAT, _AIZA, _SG, _PYPI, _YA29, _XOX, _BEGIN = map(
    fold, ("oke", "cret", "sk-", "glpat-", "aiza", "sg.", "pypi-", "ya29.", "xox", "-----begin")
)


def look(text: str, roots: tuple[str, ...]) -> int:  # noqa: C901 (unrolled: a loop costs more than the searches)
    """The groups of patterns that may match, as a bit set. ``roots`` are the folded words of the user's keys."""
    raw = text.encode("utf-8", "surrogatepass")
    low = raw.translate(_FOLD).decode("latin-1")
    runs = raw.translate(_RUNS).decode("latin-1")
    found = 0
    if "=" in low or ":" in low or '"' in low or "'" in low or ">" in low or "--" in low:
        if (
            "pf" in low
            or _PASS in low
            or _OKE in low
            or _CRET in low
            or _AUTH in low
            or _KEY in low
            or _SENHA in low
            or _SESS in low
            or _CART in low
            or _SIG in low
            or _CHAVE in low
            or _SEG in low
            or _OTP in low
        ):
            found = PAIRS
        else:
            for root in roots:
                if root in low:
                    found = PAIRS
                    break
    if "00000000000000" in runs:
        found |= TOKENS | NUMBERS
    elif _SKEY in low or _GLPAT in low or _AIZA in low or _SG in low or _PYPI in low or _YA29 in low or _XOX in low:
        found |= TOKENS
    if "000" in low and (
        "00000000000" in low
        or "000000000-00" in low
        or "000.000.000" in low
        or "000 000 000" in low
        or "0000 0000 0000" in low
        or "0000-0000-0000" in low
        or "0000 000000 0000" in low
        or "0000-000000-0000" in low
    ):
        found |= NUMBERS
    if "000/0000-00" in runs:
        found |= NUMBERS
    if "@" in low:
        found |= USERINFO | EMAILS
    if _BEARER in low or _BASIC in low:
        found |= AUTHORIZATION
    if _BEGIN in low:
        found |= PEM
    return found


def has_root(key: str, roots: tuple[str, ...]) -> bool:
    """Would :func:`look` notice this key?"""
    low = fold(key)
    return "pf" in low or _OKE in low or _CRET in low or any(root in low for root in (*_KEY_ROOTS, *roots))
