"""Configuration for ``rq worker -c`` that names no service, with arguments that are more than plain values."""

from __future__ import annotations

import enum
import os

import chegou_otel

REDIS_URL = f"redis://127.0.0.1:{os.environ['HUB_REDIS_PORT']}/0"


class Path(enum.StrEnum):
    ADMIN = "/admin/"


if "HUB_NO_SETUP" not in os.environ:
    chegou_otel.setup(
        endpoint=os.environ["HUB_ENDPOINT"],
        spool_dir=os.environ["HUB_SPOOL"],
        proxy=None,
        excluded_paths=[Path.ADMIN],
        redact_keys=(key for key in ("matricula", "cracha")),
    )
