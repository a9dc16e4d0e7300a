"""Secrets that show by their shape alone: authorization values, tokens, keys, users and passwords in URLs, e-mail addresses."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

#: Inside URLs a placeholder without brackets: those belong to IPv6 addresses there.
URL_MARK: Final = "REDACTED"

_WORD: Final = r"(?<![0-9A-Za-z])"
# Each holds fourteen or more letters and digits in a row, or one of the prefixes that the pre-filter asks for by name.
_TOKEN: Final = re.compile(
    r"(?:(?<![0-9A-Za-z_-])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt]))(?:"
    r"eyJ[0-9A-Za-z]{11,}+[0-9A-Za-z_-]*+(?:[.:][0-9A-Za-z_-]*+){1,4}"  # JWT, JWE, Django's signed values
    r"|gh[opsur]_[0-9A-Za-z]{20,}+|github_pat_[0-9A-Za-z]{14,}+[0-9A-Za-z_]*+|glpat-[0-9A-Za-z_-]{20,}+"
    r"|A(?:KI|SI)A[0-9A-Z]{16}(?![0-9A-Za-z])|AIza[0-9A-Za-z_-]{30,}+|ya29\.(?=[0-9A-Za-z_-]{0,200}?[0-9A-Za-z]{14})[0-9A-Za-z_-]{20,}+"
    r"|sk-[0-9A-Za-z_-]{16,}+|[srp]k_(?:live|test)_[0-9A-Za-z]{14,}+|whsec_[0-9A-Za-z]{14,}+[0-9A-Za-z+/=]*+"
    r"|xox[a-z]-(?:[0-9A-Za-z]{1,40}+-){0,8}+[0-9A-Za-z]{10,}+|SG\.[0-9A-Za-z_-]{16,}+\.[0-9A-Za-z_-]{16,}+"
    r"|npm_[0-9A-Za-z]{30,}+|pypi-[0-9A-Za-z]{14,}+[0-9A-Za-z_-]*+|hf_[0-9A-Za-z]{30,}+|shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{30,}+|dop_v1_[0-9a-f]{40,}+"
    r")"
)
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{1,64}-----.*?(?:-----END [A-Z0-9 ]{1,64}-----|\Z)", re.DOTALL)
_BEARER: Final = re.compile(
    # "Bearer authentication failed" is prose: a token has a digit, a capital, a sign, or twenty characters.
    _WORD + r"((?i:bearer)[ \t+]{1,8}+)(?=[a-z.]*+[0-9A-Z_~+/=-]|[a-z.]{20})[0-9A-Za-z_.~+/=-]{6,}+",
    re.ASCII,
)
_BASIC: Final = re.compile(_WORD + r"(basic[ \t+]{1,8}+)([0-9A-Za-z+/_-]{6,}+={0,2})", re.IGNORECASE | re.ASCII)
# Second form: an unescaped slash in the password. A port is digits, so it is none.
_USERINFO: Final = re.compile(r"""(?<=://)(?:[^\s/?#"'<>]*@|[^\s:/?#@"'<>\[\]]*+:(?![0-9]*+(?:[/?#\s"'<>]|\Z))(?:(?!://)[^\s"'<>])*@)""")
_EMAIL: Final = re.compile(r"(?<![0-9A-Za-z._%+-])[0-9A-Za-z._%+-]{1,64}+@[0-9A-Za-z-]{1,63}+(?:\.[0-9A-Za-z-]{1,63}+){1,8}", re.ASCII)


def hide_tokens(text: str, mark: str) -> str:
    return _TOKEN.sub(mark, text)


def hide_pem(text: str, mark: str) -> str:
    return _PEM.sub(mark, text)


def hide_authorization(text: str, mark: str) -> str:
    text = _BEARER.sub(lambda match: match[1] + mark, text)
    return _BASIC.sub(lambda match: match[1] + mark if _holds_a_password(match[2]) else match[0], text)


def _holds_a_password(encoded: str) -> bool:
    """``user:password`` in base64; "basic authentication" is prose."""
    try:
        plain = base64.b64decode(encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4), altchars=b"-_")
    except (binascii.Error, ValueError):
        return False
    return b":" in plain


def hide_userinfo(text: str) -> str:
    return _USERINFO.sub(URL_MARK + "@", text)


def hide_emails(text: str, mark: str) -> str:
    return _EMAIL.sub(mark, text)
