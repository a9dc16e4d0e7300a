"""A story as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chegou_otel.local.records import to_json
from chegou_otel.local.words import figures, headline

if TYPE_CHECKING:
    from chegou_otel.local.story import Story

_COUNTS: Final = ("sql", "redis", "outbound")


def report(told: Story) -> dict[str, Any]:
    """A story with its records, as `/c/<id>.json` and `chegou-otel find --json` give it."""
    verdict = told.verdict
    counts = {
        name: {"count": c.number, "seconds": c.seconds}
        for name, c in zip(_COUNTS, (verdict.sql, verdict.redis, verdict.outbound), strict=True)
    }
    return {
        "id": told.identifier,
        "correlation_id": told.correlation_id,
        "headline": headline(told),
        "summary": dict(figures(told)),
        "verdict": {
            "outcome": verdict.outcome,
            "total_seconds": verdict.total_seconds,
            "active_seconds": verdict.active_seconds,
            "queue_wait_seconds": verdict.queue_wait_seconds,
            "attempts": verdict.attempts,
            "errors": verdict.errors,
            "error_logs": verdict.error_logs,
            **counts,
        },
        "notes": list(told.notes),
        "traces": told.traces,
        "jobs": [
            {"id": job.id, "queue": job.queue, "function": job.function, "state": job.state, "attempts": len(job.attempts)}
            for job in told.jobs
        ],
        **to_json(told.records),
    }
