"""``key=value``, ``key: value``, ``'key': 'value'``, ``Key (cpf)=(…)``, ``<key>value</key>`` and ``--key value`` in free text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Whole runs of key characters, so that no run is looked at twice: linear time.
_KEY: Final = re.compile(
    r"""(?<![0-9A-Za-z_.\-])(?:(?<=%)5[Bb])?+([0-9A-Za-z_.\-]++)"""
    r"""(?:(?:\\*+["'])?(?:[)\]]|%5[Dd]){0,3}+[ \t]{0,4}+(=>|==|:=|[=:>])|\\*+["'][ \t]{0,4}+(,))[ \t]{0,4}+""",
    re.ASCII,
)
_OPTION: Final = re.compile(r"(?<![0-9A-Za-z_.\-])--([0-9A-Za-z_.\-]++)()()[ \t]{1,4}+")
_COLUMNS: Final = re.compile(r"\(([^()]{1,500}+)\)=\(")
_OPENING: Final = re.compile(r"""[bBrRuUfF]{0,2}(\\*+)(["'])""")
_CLOSING: Final = {
    '"': re.compile(r'(?:[^"\\]|\\.|"")*+', re.DOTALL),
    "'": re.compile(r"(?:[^'\\]|\\.|'')*+", re.DOTALL),
}
_OPEN: Final = frozenset("([{")
_BRACKET: Final = re.compile(r"[()\[\]{}]")
# A comma or bracket belongs to the value unless something new begins behind it.
_BARE: Final = re.compile(r"""(?:[^\s&;"'<>,()\[\]{}]|[,()\[\]{}](?=[^\s"'&;<>,()\[\]{}])(?![0-9A-Za-z_.\-]{1,64}+[ ]?[=:]))*+""")
_LINE: Final = re.compile(r"[^\r\n]*+")
_ELEMENT: Final = re.compile(r"[^<]*+")
#: Placeholders and what holds nothing: worth reading, nothing to hide.
_NOTHING: Final = re.compile(
    r"(?:%s|%\([A-Za-z_]{1,64}\)s|\?|\$[0-9]{1,3}|\{[A-Za-z_]*\}|None|null|NULL|nil|[Tt]rue|[Ff]alse|\*+|REDACTED)"
    r"""(?=[\s,;&)\]}"'<]|\Z)"""
)
_WHOLE_LINE: Final = ("authorization", "cookie")

Span = tuple[int, int]


def hide_pairs(text: str, is_secret: Callable[[str], bool], mark: str) -> str:
    """``text`` with the values of secret keys replaced."""
    text = _replace(text, _keyed(text, _KEY, is_secret), mark)
    if "--" in text:
        text = _replace(text, _keyed(text, _OPTION, is_secret), mark)
    return _replace(text, _columns(text, is_secret), mark) if ")=(" in text else text


def _keyed(text: str, pattern: re.Pattern[str], is_secret: Callable[[str], bool]) -> Iterator[Span]:
    done = 0
    for match in pattern.finditer(text):
        if match.start() >= done and is_secret(match[1]):
            start, done = _value(text, match)
            yield start, done


def _columns(text: str, is_secret: Callable[[str], bool]) -> Iterator[Span]:
    """PostgreSQL's ``Key (cpf, name)=(…, …)``: one secret column hides the row."""
    done = 0
    for match in _COLUMNS.finditer(text):
        if match.start() >= done and any(is_secret(name) for name in match[1].split(",")):
            start, done = match.end(), _balanced(text, match.end() - 1)
            yield start, done


def _replace(text: str, spans: Iterator[Span], mark: str) -> str:
    pieces: list[str] = []
    done = 0
    for start, end in spans:
        if end > start:
            pieces += (text[done:start], mark)
            done = end
    return "".join(pieces) + text[done:] if pieces else text


def _value(text: str, match: re.Match[str]) -> Span:  # noqa: PLR0911 (one way to write a value each)
    """Where the value behind a key begins and ends."""
    at = match.end()
    if at >= len(text) or _NOTHING.match(text, at):
        return at, at
    if match[2] == ">":
        # <key>value</key>; elsewhere the sign only compares.
        element = _ELEMENT.match(text, at) if text[match.start() - 1 : match.start()] in ("<", ":") else None
        return at, element.end() if element else at
    quoted = _OPENING.match(text, at)
    if quoted is not None:
        return quoted.end(), _end_of_quoted(text, quoted)
    if match[3]:
        return at, at  # 'key', name: a list of names
    if text[at] == "(":
        return at + 1, _balanced(text, at)
    if text[at] in _OPEN:
        return at, min(_balanced(text, at) + 1, len(text))
    if match[2] == ":" and match[1].lower().endswith(_WHOLE_LINE):
        return at, _end_of_header(text, match.start(), at)
    bare = _BARE.match(text, at)
    return at, bare.end() if bare else at


def _end_of_quoted(text: str, opening: re.Match[str]) -> int:
    """The end of a quoted value; the end of the text when nobody closes it."""
    escape, quote = opening.groups()
    if escape:
        end = text.find(escape + quote, opening.end())
        return len(text) if end < 0 else end
    closing = _CLOSING[quote].match(text, opening.end())
    return closing.end() if closing else len(text)


def _end_of_header(text: str, key: int, at: int) -> int:
    """A header's value goes on to the end of the line, or to the quote that the header stands in."""
    line = _LINE.match(text, at)
    end = line.end() if line else at
    before = text[key - 1 : key]
    closing = text.find(before, at, end) if before in ('"', "'") else -1
    return end if closing < 0 else closing


def _balanced(text: str, at: int) -> int:
    """Where the bracket at ``at`` closes; the end of the text when it does not."""
    depth = 0
    for match in _BRACKET.finditer(text, at):
        depth += 1 if match[0] in _OPEN else -1
        if depth == 0:
            return match.start()
    return len(text)
