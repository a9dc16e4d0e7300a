"""The jobs of a story: who enqueued them, how often they ran, how they ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.local.records import JOB, Span

if TYPE_CHECKING:
    from collections.abc import Iterable

RETRIED: Final = "retried"
FINISHED: Final = "finished"


@dataclass(frozen=True, slots=True)
class Job:
    """One job: the span that enqueued it, when known, and its runs in order."""

    id: str
    queue: str
    function: str
    producer: Span | None
    attempts: tuple[Span, ...]

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.function.rpartition(".")[2] or self.queue or self.id

    @property
    def failures(self) -> int:
        """How many runs did not work."""
        return sum(failed(span) for span in self.attempts)

    @property
    def most_attempts(self) -> int:
        """How often it may run; 0 when nobody said."""
        return max([_number(span.get("rq.job.max_attempts")) for span in self.attempts], default=0)

    @property
    def attempt(self) -> int:
        """The number of its last run, as the worker counts."""
        return max([_number(span.get("rq.job.attempt")) for span in self.attempts] + [len(self.attempts)])

    @property
    def state(self) -> str:
        """waiting (no run known), retried (a run is to come), finished, failed, stopped, timed_out or killed."""
        if not self.attempts:
            return "waiting"
        last = self.attempts[-1]
        told = str(last.get("rq.job.status"))
        if told == RETRIED and self.most_attempts and self.attempt >= self.most_attempts:
            return "failed"  # there is none to come
        ended = "failed" if failed(last) else FINISHED
        return told if told in (RETRIED, FINISHED, "failed") else "failed" if told else ended

    @property
    def ending(self) -> str:
        """In words, what the last run came to."""
        told = str(self.attempts[-1].get("rq.job.status")).replace("_", " ") if self.attempts else ""
        return told or self.state

    @property
    def open(self) -> bool:
        """Whether a run is still to come, or going on."""
        return self.state in ("waiting", RETRIED)

    @property
    def queue_wait(self) -> float:
        """How long its first run waited for a worker, in seconds."""
        if not self.attempts:
            return 0.0
        said = self.attempts[0].get("rq.job.queue_wait")
        if isinstance(said, int | float):
            return max(0.0, float(said))
        return max(0, self.attempts[0].start - self.producer.end) / 1e9 if self.producer else 0.0


def failed(span: Span) -> bool:
    """Whether a run did not work: by its own word, else by its status."""
    told = span.get("rq.job.status")
    return told != FINISHED if told else span.failed


def jobs_of(spans: Iterable[Span]) -> tuple[Job, ...]:
    """The jobs, in the order in which they were first seen."""
    producers: dict[str, Span] = {}
    runs: dict[str, list[Span]] = {}
    order: dict[str, None] = {}
    for span in sorted(spans, key=lambda span: span.start):
        job_id = str(span.get(JOB))
        if not job_id or span.kind not in ("PRODUCER", "CONSUMER"):
            continue
        order[job_id] = None
        if span.kind == "CONSUMER":
            runs.setdefault(job_id, []).append(span)
        else:
            producers.setdefault(job_id, span)
    return tuple(_job(job_id, producers.get(job_id), runs.get(job_id, [])) for job_id in order)


def _job(job_id: str, producer: Span | None, runs: list[Span]) -> Job:
    told = [*runs, *([producer] if producer else [])]
    queue = next((str(span.get("messaging.destination.name")) for span in told), "")
    function = next((said for span in told if (said := str(span.get("rq.job.function")))), "")
    attempts = sorted(runs, key=lambda span: (_number(span.get("rq.job.attempt")), span.start))
    return Job(job_id, queue, function, producer, tuple(attempts))


def _number(value: Any) -> int:
    return value if isinstance(value, int) else int(value) if str(value).isdigit() else 0
