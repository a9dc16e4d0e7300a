"""The correlation ID: one ID for a request, its jobs, their retries, its log lines and outbound calls.

It lives in OpenTelemetry's own ``Context`` under a private key, so it goes wherever a context goes (tasks, threads that
carry one, ``sync_to_async``), and it is not baggage: baggage reaches third parties.
"""

from __future__ import annotations

import _random
import os
import random
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context, create_key

from chegou_otel import _forks
from chegou_otel._context import attach, get_current

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Token

#: The attribute's name, the same on spans, log records, jobs and audit rows.
ATTRIBUTE: Final = "correlation_id"
#: The response and outbound header.
HEADER: Final = "X-Correlation-ID"

KEY: Final = create_key("chegou-otel-correlation")
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,127}").fullmatch


class Correlation:
    """An ID and where it came from: ``"generated"``, ``"client"`` (a header) or ``"application"``."""

    __slots__ = ("id", "log_block", "source", "span_block")

    def __init__(self, correlation_id: str, source: str = "generated") -> None:
        self.id = correlation_id
        self.source = source
        # Encoded attribute blocks, filled by the encoders on first use: one encoding per ID, not per span.
        self.span_block: bytes | None = None
        self.log_block: bytes | None = None

    def __repr__(self) -> str:
        return f"Correlation({self.id!r}, {self.source!r})"


class _Random(random.Random):
    """Our own generator: a user's ``random.seed(1)`` must not repeat IDs, and neither must a fork."""

    def __init__(self) -> None:
        super().__init__(os.urandom(32))

    def renew(self) -> None:
        """In a forked child. The C class's own ``seed``: every page that a child touches is copied, and this one touches few."""
        _random.Random.seed(self, int.from_bytes(os.urandom(32)))


rng = _Random()
_forks.in_child(rng.renew)


def new_id() -> str:
    """A UUIDv7 in its usual form: 48 bits of milliseconds, then 74 random bits. It carries its own time window."""
    value = (time.time_ns() // 1_000_000) << 80 | 0x7000 << 64 | 0x8000 << 48
    value |= rng.getrandbits(12) << 64 | rng.getrandbits(62)
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_well_formed(value: str) -> bool:
    """Whether ``value`` may be used as an ID: 8 to 128 letters, digits, ``.``, ``_``, ``-``, beginning with a letter or digit."""
    return _WELL_FORMED(value) is not None


def accept(header: str | None) -> Correlation:
    """The correlation for a client's header value: theirs when it is well-formed, otherwise a new one."""
    if header is not None and _WELL_FORMED(header) is not None:
        return Correlation(header, "client")
    return Correlation(new_id())


def current(context: Context | None = None) -> Correlation | None:
    """The correlation of ``context`` (default: the current one)."""
    found = (get_current() if context is None else context).get(KEY)
    return found if isinstance(found, Correlation) else None


def get_correlation_id() -> str | None:
    """The current correlation ID, or ``None`` outside of any request, job or ``use_correlation_id`` block."""
    found = current()
    return None if found is None else found.id


def with_correlation(correlation: Correlation, context: Context | None = None) -> Context:
    """``context`` (default: the current one) carrying ``correlation``."""
    return Context({**(get_current() if context is None else context), KEY: correlation})


def reset(token: Token[Context]) -> None:
    """Undo an ``attach``. A generator may be closed in a context other than the one it began in; then there is nothing to undo."""
    try:
        token.var.reset(token)
    except ValueError:
        return


@contextmanager
def use_correlation_id(correlation_id: str | None = None) -> Iterator[str]:
    """Run a block under ``correlation_id`` (default: a new UUIDv7) and put the former one back afterwards.

    Raises:
        ValueError: the ID is not well-formed (see :func:`is_well_formed`).
    """
    if correlation_id is not None and not is_well_formed(correlation_id):
        raise ValueError(
            f"not a correlation ID: {correlation_id!r}; it takes 8 to 128 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    correlation = Correlation(correlation_id, "application") if correlation_id else Correlation(new_id())
    token = attach(with_correlation(correlation))
    try:
        yield correlation.id
    finally:
        reset(token)
