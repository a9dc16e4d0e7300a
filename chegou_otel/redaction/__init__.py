"""Secrets and personal data never leave the process. Pure functions over text: no state but bounded caches, no dependencies."""

from chegou_otel.redaction.redactor import REDACTED, Redactor

__all__ = ["REDACTED", "Redactor"]
