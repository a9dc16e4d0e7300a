"""What is told of an exception: its type, its message, its stack, redacted."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from chegou_otel._guard import pass_foreign
from chegou_otel.signals.encoding import Safe

if TYPE_CHECKING:
    from chegou_otel.signals.encoding import Encoder


def type_name(error: BaseException) -> str:
    """``module.Qualified.Name``, without the module for builtins."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ in ("builtins", None) else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """``str(error)``, which is the application's code and may fail."""
    try:
        return str(error)
    except Exception as failure:
        pass_foreign(failure)
        return f"<{type(error).__qualname__}: its message could not be read>"


def describe(error: BaseException, encoder: Encoder) -> dict[str, Any]:
    """The ``exception.*`` attributes of an error, redacted."""
    redact = encoder.redactor.exception_message
    try:
        stack = "".join(traceback.format_exception(error))
    except Exception as failure:
        pass_foreign(failure)
        stack = type_name(error)
    return {
        "exception.type": Safe(type_name(error)),
        "exception.message": Safe(redact(message_of(error))),
        "exception.stacktrace": Safe(redact(stack)),
    }
