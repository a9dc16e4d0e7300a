"""Messages of exceptions: databases quote what was sent to them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# PostgreSQL: Key (email)=(…) already exists. Keys of up to ten digits are numbers of rows: worth reading.
_KEY: Final = re.compile(
    r"(Key \([^()]{1,500}+\)=\()(?![0-9]{1,10}\))([^\r\n]*?)(\) (?:already exists|is not present|is still referenced|conflicts)|\)?[ ]*$)",
    re.MULTILINE,
)
_ROW: Final = re.compile(r"((?:Failing row contains|New row) \()[^\r\n]*+")
_PARAMETER: Final = re.compile(r"(\$[0-9]{1,5} = )'(?:[^']|'')*+'?")
_INPUT: Final = re.compile(r"((?:invalid input (?:syntax|value) for [^\r\n:]{1,100}+|value out of range): )\"[^\r\n]*+")
_LINE: Final = re.compile(r"^(LINE [0-9]{1,6}: )([^\r\n]*+)(\r?\n[ ]*+\^)?", re.MULTILINE)
# MySQL: Duplicate entry '…' for key; Incorrect … value: '…' for column.
_ENTRY: Final = re.compile(r"(Duplicate entry |(?:Incorrect|Truncated incorrect) [A-Za-z ]{1,40}+: )'[^\r\n]*?'(?= for |$)", re.MULTILINE)
# SQLAlchemy: [parameters: (…)]
_PARAMETERS: Final = re.compile(r"(\[parameters: )[^\r\n]*+")
_NEAR: Final = re.compile(r"(right syntax to use near )'[^\r\n]*+")


def hide_in_message(text: str, mark: str, sql: Callable[[str], str]) -> str:
    """What databases and their drivers quote, in each of their ways."""
    if "Key (" in text:
        text = _KEY.sub(rf"\g<1>{mark}\g<3>", text)
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
