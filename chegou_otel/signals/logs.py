"""Log records: the standard library's, and those that come by OpenTelemetry's Logs API.

The bridge wraps ``logging.Logger.callHandlers`` and adds no handler: a handler on the root logger silences ``lastResort`` and RQ's
console, and ``dictConfig`` would remove it. Every record that a logger accepts is encoded, whatever its handlers do with it.
"""

from __future__ import annotations

import copy
import itertools
import logging
import struct
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.sdk import _logs as sdk
from opentelemetry.trace import INVALID_SPAN
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import _forks
from chegou_otel import correlation as _correlation
from chegou_otel._context import get_current
from chegou_otel._guard import guarded, pass_foreign
from chegou_otel.delivery import otlp
from chegou_otel.delivery.frames import Kind, Priority
from chegou_otel.redaction import REDACTED
from chegou_otel.signals.errors import describe
from chegou_otel.signals.flushing import Flushing
from chegou_otel.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.resources import Resource

    from chegou_otel.correlation import Correlation
    from chegou_otel.signals.encoding import Encoder
    from chegou_otel.signals.tracing import Append

    Rewrite = Callable[[logging.LogRecord, str], str]

#: What never goes over the bridge: our own lines and the SDK's would feed themselves.
EXCLUDED: Final = ("chegou_otel", "opentelemetry")

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: How many fields a record has before anybody adds one.
_BARE: Final = len(vars(logging.makeLogRecord({})))
#: Keys the bridge itself puts on a record, for formatters.
STAMPED: Final = ("correlation_id", "trace_id", "span_id")
_KNOWN: Final = _STANDARD | set(STAMPED)
_TIMES: Final = struct.Struct("<cQcQ").pack
_IDS: Final = struct.Struct("<2s16s2s8scI").pack
_FIXED64: Final = struct.Struct("<Q").pack
#: (lowest level, OTLP severity number), highest first.
_SEVERITIES: Final = ((50, 21), (40, 17), (30, 13), (20, 9), (10, 5), (0, 1))
_MAX_CACHED: Final = 4_096
_BARE_VEIL: Final[tuple[None, frozenset[str]]] = (None, frozenset())


class Uid:
    """``log.record.uid``: a repeat of a resent batch can be told from a new record."""

    def __init__(self) -> None:
        block = otlp.key_value("log.record.uid", "x" * 32)[:-32]
        self._start = otlp.LOG + otlp.varint(len(block) + 32) + block
        self._next = itertools.count().__next__
        #: Up to the number, and the process that it is for.
        self._head = b""
        self._generation = -1

    def field(self) -> bytes:
        if self._generation != _forks.generation:
            self._head = self._start + f"{_correlation.rng.getrandbits(80):020x}".encode()
            self._generation = _forks.generation
        return self._head + b"%012x" % self._next()


def severity(level: int) -> int:
    """OTLP's severity number of a standard library level."""
    return next(number for lowest, number in _SEVERITIES if level >= lowest or lowest == 0)


def priority(number: int) -> Priority:
    """Debug logs are the first to go when there is no room, then info logs; errors are the last."""
    if number >= severity(logging.ERROR):
        return Priority.HIGH
    if number >= severity(logging.WARNING):
        return Priority.NORMAL
    return Priority.INFO if number >= severity(logging.INFO) else Priority.LOW


def correlation_block(correlation: Correlation) -> bytes:
    """The encoded log attribute of a correlation ID, made once per ID."""
    block = correlation.log_block
    if block is None:
        block = correlation.log_block = otlp.attribute(otlp.LOG, _correlation.ATTRIBUTE, correlation.id)
    return block


class Line(NamedTuple):
    """A line of code that logs, at one level."""

    pathname: str
    lineno: int
    levelname: str
    logger: str
    levelno: int
    function: str


class Site:
    """What the records of one line of code have in common: encoded once, found by one look-up per record."""

    __slots__ = ("fixed", "hidden", "priority", "rewrite", "scope")

    def __init__(self, line: Line, bridge: LogBridge) -> None:
        number = severity(line.levelno)
        found = {"code.file.path": line.pathname, "code.line.number": line.lineno, "code.function.name": line.function}
        self.fixed = b"\x10" + otlp.varint(number) + otlp.text(b"\x1a", line.levelname) + otlp.attributes(otlp.LOG, found)
        self.priority = priority(number)
        self.scope = otlp.Scope.of(line.logger)
        self.rewrite, self.hidden = bridge.veils.get(line.logger, _BARE_VEIL)


class LogBridge:
    """Encodes standard library records. One per process; ``handle`` is called for each record that a logger accepted."""

    def __init__(self, append: Append, encoder: Encoder) -> None:
        self.append = append
        self.encoder = encoder
        #: False: records are stamped with their IDs and go no further (telemetry is off).
        self.recording = True
        #: Says that the record at hand was told already (it came over from loguru).
        self.muted: Callable[[], bool] | None = None
        self.uid = Uid()
        #: By logger: what makes a body of its own message, and keys of ``extra`` that never leave.
        self.veils: dict[str, tuple[Rewrite | None, frozenset[str]]] = {}
        self._sites: dict[tuple[str, int, str, str], Site] = {}
        #: In a work-horse: tells its parent of a line that is new, so that the next work-horse knows it from the start.
        self.teach: Callable[..., object] | None = None

    def veil(self, name: str, rewrite: Rewrite, hidden: frozenset[str]) -> None:
        """Where a library's own message says more than may leave (RQ's call strings): ``rewrite(record, body)`` is told instead."""
        self.veils[name] = (rewrite, hidden)
        self._sites.clear()

    @guarded
    def handle(self, record: logging.LogRecord) -> None:
        """Stamp the record with its IDs (formatters read them) and append it as a frame."""
        if record.name.startswith(EXCLUDED) or (self.muted is not None and self.muted()):
            return
        ctx = get_current()
        span, correlation = ctx.get(_SPAN_KEY), ctx.get(_correlation.KEY)
        ids = self._stamp(record.__dict__, span, correlation)
        if not self.recording:
            return
        site = self._sites.get((record.pathname, record.lineno, record.levelname, record.name)) or self._site(record)
        parts = [
            _TIMES(b"\x09", int(record.created * 1_000_000) * 1_000, b"\x59", time_ns()),
            site.fixed,
            self._body(record, site),
            ids,
            self.uid.field(),
        ]
        if correlation is not None:
            parts.append(correlation.log_block or correlation_block(correlation))  # type: ignore[attr-defined, arg-type]
        if record.exc_info:
            parts += self._exception(record.exc_info[1])
        if len(record.__dict__) > _BARE + (correlation is not None) + (2 if ids else 0):
            parts += self._extra(site, record.__dict__)
        body = b"".join(parts)
        self.append(Kind.LOG, site.scope, b"\x12" + otlp.varint(len(body)) + body, site.priority)

    def _site(self, record: logging.LogRecord) -> Site:
        line = Line(record.pathname, record.lineno, record.levelname, record.name, record.levelno, record.funcName or "")
        if self.teach is not None and len(self._sites) < _MAX_CACHED:
            self.teach("line", *line)
        return self.learn(line)

    def learn(self, line: Line) -> Site:
        """Encode what the records of a line have in common."""
        site = Site(line, self)
        if len(self._sites) < _MAX_CACHED:
            self._sites[line[:4]] = site
        return site

    def _stamp(self, fields: dict[str, Any], span: object, correlation: Any) -> bytes:
        if correlation is not None:
            fields.setdefault("correlation_id", correlation.id)
        if type(span) is Span:
            fields.setdefault("trace_id", span.trace_bytes.hex())
            fields.setdefault("span_id", span.span_bytes.hex())
            return _IDS(b"\x4a\x10", span.trace_bytes, b"\x52\x08", span.span_bytes, b"\x45", span.flags)
        return foreign_ids(span, fields)

    def _body(self, record: logging.LogRecord, site: Site) -> bytes:
        try:
            args = record.args
            said = str(record.msg) % self._veiled(args) if args and isinstance(args, dict) else record.getMessage()
        except Exception as failure:
            pass_foreign(failure)
            said = str(record.msg)  # wrong arguments are the handlers' to complain about
        if site.rewrite is not None:
            said = site.rewrite(record, said)
        text = otlp.encode_text(self.encoder.redactor.text(said))
        inner = b"\x0a" + otlp.varint(len(text)) + text
        return b"\x2a" + otlp.varint(len(inner)) + inner

    def _veiled(self, args: dict[Any, Any]) -> dict[Any, Any]:
        """Arguments by name, ``%(password)s``: once they are in the text, nothing says any more that they are secret."""
        is_secret = self.encoder.redactor.is_secret_key
        secret = [key for key in args if isinstance(key, str) and is_secret(key)]
        if not secret:
            return args
        veiled = copy.copy(args)  # some have a class of their own: gunicorn's answers for keys that it has not
        veiled.update(dict.fromkeys(secret, REDACTED))
        return veiled

    def _exception(self, error: BaseException | None) -> list[bytes]:
        return [] if error is None else self.encoder.attributes(otlp.LOG, describe(error, self.encoder))

    def _extra(self, site: Site, fields: Mapping[str, object]) -> list[bytes]:
        hidden = site.hidden
        extra = {key: value for key, value in fields.items() if key not in _KNOWN and key not in hidden and is_telling(value)}
        return self.encoder.attributes(otlp.LOG, extra)


def foreign_ids(span: object, fields: dict[str, Any]) -> bytes:
    """The IDs of a span that is not ours (unsampled, remote, another provider's)."""
    context = getattr(span, "get_span_context", INVALID_SPAN.get_span_context)()
    if not context.is_valid:
        return b""
    trace, own = context.trace_id.to_bytes(16), context.span_id.to_bytes(8)
    fields.setdefault("trace_id", trace.hex())
    fields.setdefault("span_id", own.hex())
    return _IDS(b"\x4a\x10", trace, b"\x52\x08", own, b"\x45", int(context.trace_flags))


_TELLING: Final = (str, int, float, bytes, list, tuple, dict, *otlp.PLAIN)


def is_telling(value: object) -> bool:
    """Whether an ``extra`` value says something by itself; requests, sockets and models do not."""
    return isinstance(value, _TELLING)


class LoggerProvider(Flushing, sdk.LoggerProvider):
    """The SDK's provider; what is emitted through the Logs API is encoded by us."""

    _logger_cache_lock = _forks.FreeLock()
    _active_loggers_lock = _forks.FreeLock()

    def __init__(self, processor: FrameProcessor, resource: Resource) -> None:
        with _forks.unhooked("opentelemetry."):
            super().__init__(resource=resource, shutdown_on_exit=False)
        self.processor = processor
        self.add_log_record_processor(processor)

    def shutdown(self) -> None:
        """Off, not gone: a later ``setup()`` finds every logger that was handed out."""
        self.processor.armed = False


class FrameProcessor(sdk.LogRecordProcessor):
    """Encodes the SDK's records."""

    def __init__(self, append: Append, encoder: Encoder) -> None:
        self.append = append
        self.encoder = encoder
        self.armed = True
        self.uid = Uid()

    @guarded
    def on_emit(self, log_record: sdk.ReadWriteLogRecord) -> None:
        if not self.armed:
            return
        record, scope = log_record.log_record, log_record.instrumentation_scope
        ctx = record.context or get_current()
        correlation = ctx.get(_correlation.KEY)
        number = record.severity_number.value if record.severity_number is not None else 0
        parts = [
            _TIMES(b"\x09", record.timestamp or 0, b"\x59", record.observed_timestamp or time_ns()),
            b"\x10" + otlp.varint(number),
            otlp.text(b"\x1a", record.severity_text) if record.severity_text else b"",
            otlp.message(b"\x2a", otlp.any_value(self.encoder.clean("body", record.body))) if record.body is not None else b"",
            otlp.text(b"\x62", record.event_name) if record.event_name else b"",
            foreign_ids(ctx.get(_SPAN_KEY), {}),
            self.uid.field(),
            correlation_block(correlation) if isinstance(correlation, _correlation.Correlation) else b"",
            *self.encoder.attributes(otlp.LOG, record.attributes or {}),
        ]
        body = b"".join(parts)
        owner = otlp.Scope.of(scope.name, scope.version or "", scope.schema_url or "") if scope else otlp.Scope.of("")
        self.append(Kind.LOG, owner, b"\x12" + otlp.varint(len(body)) + body, priority(number or 9))

    def shutdown(self) -> None:
        self.armed = False

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True
