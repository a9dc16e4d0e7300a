"""Tests whose outcome may differ with the package active, each with its reason. Short by design: a difference is our bug."""

from __future__ import annotations

KNOWN: dict[str, dict[str, str]] = {"django": {}, "rq": {}}
