"""SQL without its literals. One pass, linear, and no parser: what it does not know stays as it is, unless it is a literal."""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<comment>--[^\r\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/)?)
    | (?P<dollar>\$(?P<tag>[A-Za-z_][0-9A-Za-z_]{0,63})?\$)
    | (?<![0-9A-Za-z_$])[eE](?P<escaped>'(?:[^'\\]|\\.|'')*+)'?
    | (?:(?<![0-9A-Za-z_$])(?:[xXbBnN]|[uU]&|_[0-9A-Za-z]{1,20}\s?))?(?P<string>'(?:[^']|'')*+)'?
    | (?P<name>"(?:[^"]|"")*+"?|`(?:[^`]|``)*+`?)
    | (?<![0-9A-Za-z_$@%:\x80-\U0010ffff])(?P<number>0[xX][0-9A-Fa-f]++|(?:[0-9][0-9_]*+(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)
      (?![A-Za-z_])
    """,
    re.VERBOSE | re.DOTALL,
)
_HOLDER: Final = r"(?:\?[0-9]*+|%s|%\([A-Za-z0-9_]{1,64}\)s|\$[0-9]++|:[A-Za-z0-9_]++|@[A-Za-z0-9_]++)(?:::[A-Za-z_]++)?"
_LIST: Final = rf"\(\s*+({_HOLDER})\s*+(?:,\s*+(?:{_HOLDER})\s*+)++\)"
_IN: Final = re.compile(rf"(?<=[iI][nN])(\s*+){_LIST}")
_ROW: Final = rf"\(\s*+(?:{_HOLDER}|DEFAULT|NULL)\s*+(?:,\s*+(?:{_HOLDER}|DEFAULT|NULL)\s*+)*+\)"
_ROWS: Final = re.compile(rf"({_ROW})(?:\s*+,\s*+{_ROW})++")
_PLAIN: Final = re.compile(r"[^'$\"`/0-9-]*+")


def strip_literals(statement: str, *, double_quoted_strings: bool) -> str:
    """``statement`` with ``?`` for every string and number, without comments, lists of placeholders shortened."""
    if _PLAIN.fullmatch(statement) is None:
        statement = _literals(statement, double_quoted_strings).strip(" \t\r\n")
    if "(" in statement and "," in statement:
        statement = _ROWS.sub(r"\1", _IN.sub(r"\1(\2)", statement))
    return statement


def _literals(statement: str, double_quoted_strings: bool) -> str:
    pieces: list[str] = []
    done = 0
    match = _TOKEN.search(statement)
    while match is not None:
        kind, end = match.lastgroup, match.end()
        pieces.append(statement[done : match.start()])
        if kind == "comment":
            # "a/**/b" keeps its words apart.
            pieces.append("" if statement[match.start() - 1 : match.start()].isspace() else " ")
            end += statement[end : end + 1] == " "
        elif kind == "name" and not (double_quoted_strings and match[0].startswith('"')):
            pieces.append(match[0])
        else:
            pieces.append("?")
            if kind in ("string", "name") and _ambiguous(match[0]):
                return "".join(pieces) + " …"
            if kind in ("dollar", "tag"):
                closed = statement.find(match["dollar"], end)
                end = len(statement) if closed < 0 else closed + len(match["dollar"])
        done = end
        match = _TOKEN.search(statement, done)
    return "".join(pieces) + statement[done:]


def _ambiguous(literal: str) -> bool:
    r"""``'…\'``: the end of the string in standard SQL, a quote inside of it in MySQL. What follows may be either, so it is left out."""
    inner = literal.rstrip("'\"")
    return "\\'" in literal or '\\"' in literal or (len(inner) < len(literal) and inner.endswith("\\"))
