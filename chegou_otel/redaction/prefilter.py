"""The cheap look that nearly every text gets: which groups of patterns could match at all?

No false negatives: a group that is not named here would change nothing; a property test proves it. A single letter is found at the speed
of ``memchr`` (15 ns), a word of several takes 100 ns in 150 characters. So rare letters are asked first, and letters are folded into
classes, where one search stands for several words.
"""

from __future__ import annotations

import re
from typing import Final

PAIRS: Final = 1
TOKENS: Final = 2
NUMBERS: Final = 4
USERINFO: Final = 8
AUTHORIZATION: Final = 16
PEM: Final = 32
EMAILS: Final = 64
ALL: Final = 127


def _folding() -> bytes:
    """Lower case; digits are ``0``; the letters of a group are one, so that ``pf`` stands for cpf, cnpj, pwd and cvv."""
    table = list(range(256))
    for code in range(128):
        letter = chr(code).lower()
        table[code] = ord("0") if letter.isdigit() else ord(letter)
    for group in ("ei", "td", "fvwj", "pc"):
        for letter in group:
            table[ord(letter)] = table[ord(letter.upper())] = ord(group[0])
    return bytes(table)


def _marking(marked: str) -> bytes:
    return bytes(ord("0") if code < 128 and chr(code) in marked else code for code in range(256))  # noqa: PLR2004 (the end of ASCII)


_DIGITS: Final = "0123456789"
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FOLD: Final = _folding()
_RUNS: Final = _marking(_DIGITS + _LETTERS)
_FOURTEEN: Final = "0" * 14
#: No number, token or authorization is shorter; what is needs a sign: "otp=1", "a@b.c".
_SHORTEST: Final = 11
_ZEROS: Final = re.compile("0*+")
#: A CNPJ, and the escape that may stand right before it (``%3D``).
_CNPJ_RUN: Final = 16


def fold(text: str) -> str:
    """``text`` as the searches below see it."""
    return _bytes(text).translate(_FOLD).decode("latin-1")


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return text.encode("utf-8", "surrogatepass")


_PASS, _SENHA, _AUTH, _SESS, _CHAVE, _SEG, _CRET, _OTP = map(fold, ("pass", "senha", "auth", "sess", "chave", "seg", "cret", "otp"))
_BEARER, _BASIC, _BEGIN, _AIZA, _GLPAT = map(fold, ("bearer", "basic", "-----begin", "aiza", "glpat-"))
#: How tokens begin that hold fourteen letters and digits in a row.
_STARTS: Final = tuple(
    map(fold, ("eyj", "gh", "hub_pat_", "akia", "asia", "k_live_", "k_test_", "whsec", "npm_", "pypi-", "hf_", "shp", "dop_v1_"))
)


def look(text: str, roots: tuple[str, ...]) -> int:
    """The groups of patterns that may match, as a bit set. ``roots`` are the folded words of the user's keys."""
    if len(text) < _SHORTEST and text.isalnum():
        return 0
    raw = _bytes(text)
    low = raw.translate(_FOLD).decode("latin-1")
    runs = raw.translate(_RUNS).decode("latin-1")
    dashed = "-" in low
    found = 0
    if ("=" in low or ":" in low or '"' in low or "'" in low or ">" in low or (dashed and "--" in low)) and names_a_secret(low, roots):
        found = PAIRS
    if "000" in low and _numbers(low):
        found |= NUMBERS
    if _FOURTEEN in runs:
        found |= _long_runs(raw, low, runs)
    if dashed:
        if _BEGIN in low:
            found |= PEM
        if _GLPAT in low or ("k" in low and "sk-" in low) or ("x" in low and "xox" in low):
            found |= TOKENS
        if "/" in low and "00.000.000/0000-00" in runs:
            found |= NUMBERS
    if ("z" in low and _AIZA in low) or ("." in low and (("G" in text and "SG." in text) or ("y" in low and "ya00." in low))):
        found |= TOKENS
    if "@" in low:
        found |= USERINFO | EMAILS
    if "b" in low and (_BEARER in low or _BASIC in low):
        found |= AUTHORIZATION
    return found


def names_a_secret(low: str, roots: tuple[str, ...]) -> bool:
    """Does folded text hold a part of any secret key?"""
    if (
        "pf" in low  # cpf, cnpj, pwd, cvv, cvc
        or _CRET in low  # secret, credential
        or _SEG in low  # segredo, seguranca, sig, signature
        or _OTP in low
        or ("ss" in low and (_PASS in low or _SESS in low))
        or ("k" in low and "ke" in low and ("oke" in low or "key" in low))  # token, cookie
        or ("h" in low and (_AUTH in low or ("ha" in low and (_SENHA in low or _CHAVE in low))))
    ):
        return True
    for root in roots:  # noqa: SIM110 (any() costs more than the searches)
        if root in low:
            return True
    return False


def _numbers(low: str) -> bool:
    """Folded text that may hold a CPF, a CNPJ or a card number in digits."""
    return (
        "000.000.000" in low
        or "000 000 000" in low
        or (
            "0000" in low
            and (
                ("000000000" in low and ("00000000000" in low or "000000000-00" in low or "000000000/00" in low))
                or ("0000 0000" in low and ("0000 0000 0000" in low or "0000 000000 0000" in low))
                or ("0000-0000" in low and ("0000-0000-0000" in low or "0000-000000-0000" in low))
                or ("/" in low and "00000000/0000-00" in low)
            )
        )
    )


def _long_runs(raw: bytes, low: str, runs: str) -> int:
    """What runs of fourteen letters and digits may be: tokens by what stands before them, a CNPJ by its end. Long words are neither."""
    found = 0
    start = runs.find(_FOURTEEN)
    while start >= 0:
        run = _ZEROS.match(runs, start)
        end = run.end() if run else len(runs)
        near = low[start - 12 if start > 12 else 0 : start + 8]  # noqa: PLR2004 (the longest beginning; an escape and "eyJ")
        for begin in _STARTS:
            if begin in near:
                found |= TOKENS
                break
        if end - start <= _CNPJ_RUN and raw[end - 2 : end].isdigit():
            found |= NUMBERS
        start = runs.find(_FOURTEEN, end)
    return found
