"""Log formatters for the user's own handlers: one JSON object per line, or a readable line. Both carry the same IDs.

They are used from ``LOGGING`` like any formatter::

    "formatters": {"json": {"()": "chegou_otel.formatters.JSONFormatter"}}

The correlation ID and the span's IDs are on the record already (``setup()`` stamps every record), so any other formatter can use
``%(correlation_id)s``, ``%(trace_id)s`` and ``%(span_id)s`` too; these two also do without.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

from chegou_otel.correlation import get_correlation_id

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_IDS: Final = ("correlation_id", "trace_id", "span_id")
#: What would let a message forge a second line, or colour the terminal.
_ESCAPES: Final = {ord("\n"): "\\n", ord("\r"): "\\r", 0x1B: "\\x1b", 0x85: "\\x85", 0x2028: "\\u2028", 0x2029: "\\u2029"}

_JSON_ESCAPES: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def ids_of(record: logging.LogRecord) -> dict[str, str]:
    """The IDs on a record, or the current correlation ID where nobody stamped it."""
    found = {name: str(value) for name in _IDS if (value := getattr(record, name, None))}
    if "correlation_id" not in found and (current := get_correlation_id()):
        found["correlation_id"] = current
    return found


class JSONFormatter(logging.Formatter):
    """One JSON object per line: time (ISO with time zone), level, logger, message, IDs, ``extra``, exception."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **ids_of(record),
        }
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in _IDS}
        told.update({key: value for key, value in extra.items() if key not in told})
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=_named).translate(_JSON_ESCAPES)


class ReadableFormatter(logging.Formatter):
    """``14:30:25.123 INFO pedidos [0198…] Pedido criado``: one line per record, the exception below it."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        found = ids_of(record)
        where = f" [{found['correlation_id']}]" if "correlation_id" in found else ""
        trace = f" trace={found['trace_id']} span={found['span_id']}" if "trace_id" in found and "span_id" in found else ""
        line = f"{when} {record.levelname} {record.name}{where} {record.getMessage().translate(_ESCAPES)}{trace}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _named(value: object) -> str:
    """An object by its type: its ``repr`` may hold anything. Dates, UUIDs and decimals say what they are."""
    plain = type(value).__module__ in ("datetime", "uuid", "decimal", "pathlib")
    return str(value) if plain else f"<{type(value).__qualname__}>"
