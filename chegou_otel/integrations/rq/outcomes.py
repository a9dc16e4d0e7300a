"""How an execution ended, in one word."""

from __future__ import annotations

from typing import Any, Final

#: Outcomes that are errors, in words.
FAILED: Final = {
    "failed": "the job failed",
    "timed_out": "the job timed out",
    "stopped": "the job was stopped",
    "killed": "the job was killed",
    "vanished": "the job's process left without a word",
    "abandoned": "nothing was heard of the job's worker any more",
}
_AGAIN: Final = frozenset({"queued", "scheduled"})


def outcome_of(job: Any, error: BaseException | None, *, done: bool) -> str:
    """The truth about a finished ``perform_job``: finished, retried, timed_out or failed."""
    status = status_of(job)
    if status in _AGAIN and not (done and error is None and type(job._result).__name__ != "Retry"):
        return "retried"
    if done and error is None:  # with a repeat, it waits for its next run by now
        return "failed" if status == "failed" else "finished"
    return "timed_out" if error is not None and type(error).__name__ == "JobTimeoutException" else "failed"


def status_of(job: Any) -> str:
    """The status that a job in hand had last; Redis is not asked."""
    return str(getattr(job._status, "value", job._status) or "")
