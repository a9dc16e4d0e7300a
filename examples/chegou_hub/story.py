"""What the story of one order has to tell: the demo and the end-to-end tests ask until all of it is there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Story:
    """The spans and log records of one correlation ID, as `chegou-otel find --json` prints them."""

    spans: list[Item]
    logs: list[Item]

    def named(self, kind: str, **attributes: str) -> list[Item]:
        """The spans of a kind whose attributes have these values (`__` stands for a dot)."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return [span for span in self.spans if span["kind"] == kind and all(span["attributes"].get(k) == v for k, v in wanted.items())]

    def jobs(self, *, failed: bool) -> list[Item]:
        """The runs of the job by how they ended."""
        return [span for span in self.named("CONSUMER") if (span["status"] == "ERROR") is failed]

    def says(self, words: str) -> bool:
        """Whether a log record has these words."""
        return any(words in str(log["body"]) for log in self.logs)


SQL_SYSTEMS = ("sqlite", "postgresql", "mysql")

CHAPTERS: dict[str, Callable[[Story], object]] = {
    "the request": lambda s: s.named("SERVER", http__request__method="POST"),
    "its SQL": lambda s: any(s.named("CLIENT", db__system__name=system) for system in SQL_SYSTEMS),
    "its Redis calls": lambda s: s.named("CLIENT", db__system__name="redis"),
    "its outbound call": lambda s: s.named("CLIENT", http__request__method="GET", http__response__status_code=200),
    "the enqueued job": lambda s: s.named("PRODUCER"),
    "the job's first, failed run": lambda s: s.jobs(failed=True),
    "the job's retry": lambda s: s.jobs(failed=False),
    "the job's outbound calls": lambda s: len(s.named("CLIENT", http__request__method="POST")) > 1,
    "the request's logs": lambda s: s.says("recebido"),
    "the job's logs": lambda s: s.says("Transportadora recusou") and s.says("sincronizado"),
    "one trace for all of it": lambda s: len({span["trace_id"] for span in s.spans}) == 1,
}


def missing(story: Story) -> Iterator[str]:
    """The chapters that are not there (yet)."""
    return (name for name, holds in CHAPTERS.items() if not holds(story))
