"""URLs and query strings: users, secret parameters and tokens go, everything else stays readable. Garbage passes through the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

from chegou_otel.redaction.shapes import URL_MARK, hide_userinfo

if TYPE_CHECKING:
    from collections.abc import Callable

_DECODINGS: Final = 3
_SCHEMELESS_END: Final = "/?#"


def has_plain_query(url: str, is_secret: Callable[[str], bool]) -> bool:
    """The short way for most URLs: no pattern matches anywhere, nothing is encoded, no parameter is secret."""
    _, mark, query = url.partition("?")
    if not mark:
        return "#" not in url and "%" not in url
    if "%" in url or "+" in query or "#" in query or "code=" in query:
        return False
    for part in query.split("&"):  # noqa: SIM110 (any() costs more)
        if is_secret(part.partition("=")[0]):
            return False
    return True


def hide_in_url(url: str, is_secret: Callable[[str], bool], clean: Callable[[str], str]) -> str:
    """``clean`` is what redacts text."""
    url = _without_user(url) if "@" in url else url
    rest, hash_sign, fragment = url.partition("#")
    path, mark, query = rest.partition("?")
    path = _clean_path(clean(path), clean)
    if mark:
        query = hide_in_query(query, is_secret, clean)
    if hash_sign:
        fragment = hide_in_query(fragment, is_secret, clean)
    return f"{path}{mark}{query}{hash_sign}{fragment}"


def hide_in_query(query: str, is_secret: Callable[[str], bool], clean: Callable[[str], str]) -> str:
    """``a=1&token=x`` → ``a=1&token=REDACTED``; values are also judged decoded, as deep as somebody encoded them."""
    oauth = "code=" in query and "state=" in query
    parts = query.split("&")
    for at, part in enumerate(parts):
        key, sign, value = part.partition("=")
        if not sign:
            parts[at] = part if _is_clean(part, clean) else URL_MARK
        elif value and value != URL_MARK:
            name = unquote_plus(key) if "%" in key or "+" in key else key
            if is_secret(name) or (oauth and name == "code") or not _is_clean(value, clean):
                parts[at] = f"{key if _is_clean(key, clean) else URL_MARK}={URL_MARK}"
            elif not _is_clean(key, clean):
                parts[at] = f"{URL_MARK}={value}"
    return "&".join(parts)


def _clean_path(path: str, clean: Callable[[str], str]) -> str:
    """Segments are judged decoded too: ``/clientes/529%2E982%2E247-25``."""
    if "%" not in path:
        return path
    return "/".join(URL_MARK if "%" in segment and not _is_clean(segment, clean) else segment for segment in path.split("/"))


def _is_clean(value: str, clean: Callable[[str], str]) -> bool:
    for _ in range(_DECODINGS):
        if clean(value) != value:
            return False
        decoded = unquote_plus(value) if "%" in value or "+" in value else value
        if decoded == value:
            break
        value = decoded
    return True


def _without_user(url: str) -> str:
    if "://" in url:
        return hide_userinfo(url)
    lead = "//" if url.startswith("//") else ""
    rest = url[len(lead) :]
    end = min((found for sign in _SCHEMELESS_END if (found := rest.find(sign)) >= 0), default=len(rest))
    user, sign, host = rest[:end].rpartition("@")
    if not sign or not (lead or ":" in user):
        return url
    return f"{lead}{URL_MARK}@{host}{rest[end:]}"
