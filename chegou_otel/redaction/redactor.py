"""The redactor: what is known of a value (its key, its kind) decides what is looked for in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from chegou_otel.redaction import digits, messages, pairs, prefilter, shapes, sql, urls
from chegou_otel.redaction.cache import Cache
from chegou_otel.redaction.keys import KeyRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

REDACTED: Final = "[redacted]"
#: Longer texts are cut: nothing may take unbounded time in a request.
MAX_TEXT: Final = 32_768
MAX_URL: Final = 8_192
_CUT: Final = " … [cut]"
#: Where a text is cut may be inside a secret; what is left of that goes too.
_MARGIN: Final = 256
_MAX_DEPTH: Final = 8
_MAX_ITEMS: Final = 1_000
_URL_KEYS: Final = frozenset({"url.full", "url.original", "http.url", "http.target", "referer", "location", "origin", "content-location"})
_SQL_KEYS: Final = frozenset({"db.query.text", "db.statement"})
_MESSAGE_KEYS: Final = frozenset({"exception.message", "exception.stacktrace"})
_HEADER_KEYS: Final = ("http.request.header.", "http.response.header.")


class Redactor:
    """Defaults plus the user's additions. Thread-safe; made once per process.

    Args:
        keys: Further keys whose values are secret: names such as ``matricula`` or ``X-Partner-Id``.
        patterns: Further regular expressions; what they match is replaced. Keep them linear: they run on every text.
        allow_keys: Keys that are not secret although a rule says so. The whole key is meant: ``page_token``.
        emails: Replace e-mail addresses too.
        enabled: ``False`` leaves everything as it is.

    Raises:
        ValueError: A key or a pattern is not usable; the message names it.
    """

    __slots__ = ("_emails", "_enabled", "_keys", "_kinds", "_patterns", "_roots", "_rules", "_statements", "_text_keys")

    def __init__(
        self,
        *,
        keys: Iterable[str] = (),
        patterns: Iterable[str | re.Pattern[str]] = (),
        allow_keys: Iterable[str] = (),
        emails: bool = False,
        enabled: bool = True,
    ) -> None:
        self._rules = KeyRules(keys, allow_keys)
        self._roots = tuple(prefilter.fold(root) for root in self._rules.roots)
        self._patterns = tuple(_compiled(pattern) for pattern in patterns)
        self._emails = emails
        self._enabled = enabled
        self._keys: Cache[bool] = Cache(4_096, 262_144)
        self._text_keys: Cache[bool] = Cache(4_096, 262_144)
        self._kinds: Cache[Callable[[str], str]] = Cache(4_096, 262_144)
        self._statements: tuple[Cache[str], Cache[str]] = (Cache(2_048, 2_097_152), Cache(2_048, 2_097_152))

    def is_secret_key(self, key: str) -> bool:
        """Does a value under this key have to be hidden?"""
        known = self._keys.young.get(key)
        if known is None:
            known = self._keys.get(key)
            if known is None:
                known = self._enabled and self._rules.judge(key)
                self._keys.put(key, known)
        return known

    def text(self, value: str) -> str:
        """Free text; the same object when there is nothing to hide."""
        if len(value) > MAX_TEXT:
            value = self._shortened(value)
        found = prefilter.look(value, self._roots)
        if not found and not self._patterns:
            return value
        return self._scrubbed(value, found) if self._enabled else value

    def _shortened(self, value: str) -> str:
        if not self._enabled:
            return value[:MAX_TEXT]
        kept = MAX_TEXT - len(_CUT)
        return self._scrubbed(value[:kept], prefilter.ALL)[: kept - _MARGIN] + _CUT

    def _scrubbed(self, value: str, found: int) -> str:
        if found & prefilter.PEM:
            value = shapes.hide_pem(value, REDACTED)
        if found & prefilter.PAIRS:
            value = pairs.hide_pairs(value, self._is_secret_in_text, REDACTED)
        if found & prefilter.AUTHORIZATION:
            value = shapes.hide_authorization(value, REDACTED)
        if found & prefilter.TOKENS:
            value = shapes.hide_tokens(value, REDACTED)
        if found & prefilter.NUMBERS:
            value = digits.hide_numbers(value, REDACTED)
        if found & prefilter.USERINFO:
            value = shapes.hide_userinfo(value)
        if found & prefilter.EMAILS and self._emails:
            value = shapes.hide_emails(value, REDACTED)
        for pattern in self._patterns:
            value = REDACTED.join(pattern.sub(REDACTED, piece) for piece in value.split(REDACTED))
        return value

    def _is_secret_in_text(self, key: str) -> bool:
        """In text fewer keys count: those that the pre-filter can see."""
        known = self._text_keys.get(key)
        if known is None:
            known = self.is_secret_key(key) and prefilter.names_a_secret(prefilter.fold(key), self._roots)
            self._text_keys.put(key, known)
        return known

    def url(self, value: str) -> str:
        """A URL, absolute or not, in whatever state."""
        if not self._enabled or (
            len(value) <= MAX_URL
            and not self._patterns
            and not prefilter.look(value, self._roots)
            and urls.has_plain_query(value, self.is_secret_key)
        ):
            return value
        clean = urls.hide_in_url(value[:MAX_URL], self.is_secret_key, self.text)
        if "@" in clean and "://" not in clean and clean != value:
            # What was hidden may have kept a user from being seen: "52998224725:pw@host".
            clean = urls.hide_in_url(clean, self.is_secret_key, self.text)
        return value if clean == value else clean

    def query_string(self, value: str) -> str:
        """``a=1&token=REDACTED``."""
        if not self._enabled or not value:
            return value
        clean = urls.hide_in_query(value[:MAX_URL], self.is_secret_key, self.text)
        return value if clean == value else clean

    def header(self, name: str, value: str) -> str:
        """A header's value."""
        if self.is_secret_key(name):
            return REDACTED
        return self.url(value) if name.lower() in _URL_KEYS else self.text(value)

    def sql(self, statement: str, *, double_quoted_strings: bool = False) -> str:
        """A statement without its literals and comments; placeholders and names stay.

        Args:
            statement: The text as executed.
            double_quoted_strings: ``"…"`` is a string (MySQL), not a name.
        """
        if not self._enabled:
            return statement
        cache = self._statements[double_quoted_strings]
        known = cache.get(statement)
        if known is None:
            known = sql.strip_literals(statement[:MAX_TEXT], double_quoted_strings=double_quoted_strings)
            known = self._scrubbed(known, prefilter.look(known, self._roots) & ~prefilter.PAIRS)
            cache.put(statement, known)
        return known

    def exception_message(self, value: str) -> str:
        """Like :meth:`text`, and without what databases quote in their messages."""
        if not self._enabled:
            return value
        return self.text(messages.hide_in_message(value[:MAX_TEXT], REDACTED, self.sql))

    def value(self, key: str, value: object) -> object:
        """An attribute's value, by its key first. Numbers, booleans and ``None`` on their own are left alone."""
        if value is None or isinstance(value, bool | int | float) or not self._enabled:
            return value
        return self._value(key, value, _MAX_DEPTH)

    def _value(self, key: str, value: object, depth: int) -> object:
        if value is None or value is True or value is False or (type(value) is str and not value):
            return value
        if self.is_secret_key(key):
            return REDACTED
        if isinstance(value, str):
            return self._kind(key)(value if type(value) is str else str.__str__(value))
        if isinstance(value, int | float):
            return value
        if isinstance(value, bytes | bytearray):
            clean = self.text(shown := bytes(value[:MAX_TEXT]).decode("utf-8", "replace"))
            return value if clean == shown else clean.encode("utf-8", "replace")
        return self._nested(key, value, depth - 1)

    def _nested(self, key: str, value: object, depth: int) -> object:
        if isinstance(value, Mapping):
            if depth < 0:
                return REDACTED
            items = list(value.items())[:_MAX_ITEMS]
            return {self._name(name): self._value(str(name), item, depth) for name, item in items}
        if isinstance(value, list | tuple | set | frozenset):
            if depth < 0:
                return REDACTED
            return [self._value(key, item, depth) for item in list(value)[:_MAX_ITEMS]]
        return value

    def _name(self, name: object) -> object:
        """A mapping may be keyed by what it counts: ``{"529.982.247-25": 2}``."""
        return self.text(name) if type(name) is str else name

    def _kind(self, key: str) -> Callable[[str], str]:
        """How the text under a key is to be read."""
        known = self._kinds.get(key)
        if known is None:
            known = self._kind_of(key)
            self._kinds.put(key, known)
        return known

    def _kind_of(self, key: str) -> Callable[[str], str]:
        if key.startswith(_HEADER_KEYS):
            return self.url if key.rpartition(".")[2].replace("_", "-") in _URL_KEYS else self.text
        if key in _URL_KEYS:
            return self.url
        if key == "url.query":
            return self.query_string
        if key in _SQL_KEYS:
            return self._statement
        return self.exception_message if key in _MESSAGE_KEYS else self.text

    def _statement(self, value: str) -> str:
        """A statement of somebody else's, which may be no SQL at all (MongoDB's JSON, Redis)."""
        return self.text(self.sql(value))


def _compiled(pattern: object) -> re.Pattern[str]:
    try:
        compiled: re.Pattern[str] = re.compile(pattern)  # type: ignore[call-overload]
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"patterns: {pattern!r} is no regular expression: {error}") from error
    if not isinstance(compiled.pattern, str):
        raise ValueError(f"patterns: {pattern!r} matches bytes: give text")  # noqa: TRY004 (one kind of error for one kind of mistake)
    if compiled.search("") is not None:
        raise ValueError(f"patterns: {pattern!r} matches nothing at all, so it would match everywhere")
    return compiled
