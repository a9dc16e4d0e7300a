"""Messages of exceptions: databases quote what was sent to them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# PostgreSQL: Key (email)=(…) already exists. Keys of up to ten digits are numbers of rows: worth reading.
_KEY: Final = re.compile(r"[Kk]ey \([^()]{1,500}+\)=\((?![0-9]{1,10}\))")
_KEY_ENDS: Final = re.compile(
    r"\) (?:already exists|is not present in|is still referenced|conflicts with|is duplicated)|\)\.?[ ]{0,4}[\r\n]|\)\.?\Z"
)
_LINE_ENDS: Final = re.compile(r"[\r\n]")
_FARTHEST: Final = 4_000
_ROW: Final = re.compile(r"((?:Failing row contains|New row) \()[^\r\n]*+")
_PARAMETER: Final = re.compile(r"(\$[0-9]{1,5} = )'(?:[^']|'')*+'?")
_INPUT: Final = re.compile(r"((?:invalid input (?:syntax|value) for [^\r\n:]{1,100}+|value out of range): )\"[^\r\n]*+")
_LINE: Final = re.compile(r"^(LINE [0-9]{1,6}: )([^\r\n]*+)(\r?\n[ ]*+\^)?", re.MULTILINE)
# MySQL: Duplicate entry '…' for key; Incorrect … value: '…' for column.
_ENTRY: Final = re.compile(
    r"(Duplicate entry |(?:Incorrect|Truncated incorrect) [A-Za-z ]{1,40}+: )'[^\r\n]{0,512}?'(?= for |$)", re.MULTILINE
)
# SQLAlchemy: [parameters: (…)]
_PARAMETERS: Final = re.compile(r"(\[parameters: )[^\r\n]*+")
_NEAR: Final = re.compile(r"(right syntax to use near )'[^\r\n]*+")


def hide_in_message(text: str, mark: str, sql: Callable[[str], str]) -> str:
    """What databases and their drivers quote, in each of their ways."""
    if "ey (" in text:
        text = _without_keys(text, mark)
    if "ow contains (" in text or "New row (" in text:
        text = _ROW.sub(rf"\g<1>{mark})", text)
    if " = '" in text:
        text = _PARAMETER.sub(rf"\g<1>'{mark}'", text)
    if "invalid input" in text or "out of range" in text:
        text = _INPUT.sub(rf'\g<1>"{mark}"', text)
    if "LINE " in text:
        text = _LINE.sub(lambda match: match[1] + sql(match[2]), text)
    if "entry '" in text or "ncorrect " in text:
        text = _ENTRY.sub(rf"\g<1>'{mark}'", text)
    if "[parameters: " in text:
        text = _PARAMETERS.sub(rf"\g<1>{mark}]", text)
    if "syntax to use near" in text:
        text = _NEAR.sub(rf"\g<1>'{mark}'", text)
    return text


def _without_keys(text: str, mark: str) -> str:
    """A value may hold line breaks and brackets: it goes on to what PostgreSQL writes behind it, or to the end of the line."""
    pieces: list[str] = []
    done = 0
    for match in _KEY.finditer(text):
        at = match.end()
        if match.start() < done:
            continue
        end = _KEY_ENDS.search(text, at, at + _FARTHEST) or _LINE_ENDS.search(text, at)
        pieces += (text[done:at], mark)
        done = end.start() if end else len(text)
    return "".join(pieces) + text[done:] if pieces else text
