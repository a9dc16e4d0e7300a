"""How measurements are added up: what the variables and settings of metrics say, in one value for our series and for the SDK's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Self

from chegou_otel import _environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Attributes = tuple[tuple[str, object], ...]

MAX_SERIES: Final = 2_000
#: Kinds of instruments that another process can go on adding up. What is so and so high now ends with its process.
ADDED_UP: Final = ("counter", "histogram")


class Aggregation(NamedTuple):
    """What holds for every instrument.

    Attributes:
        temporality: ``cumulative``; ``delta``: counters and histograms tell what is new since the last collection; ``lowmemory``: the
            same, but what is observed by a callback stays cumulative. What goes up and down is cumulative always.
        exemplars: Which values may become exemplars: ``trace_based`` (those of sampled spans), ``always_on`` or ``always_off``.
        histogram: How the SDK's histograms are made that do not say it. Ours have the buckets of the semantic conventions.
        max_series: Most series of one instrument; further ones share the overflow series.
    """

    temporality: str = "cumulative"
    exemplars: str = "trace_based"
    histogram: str = "explicit_bucket_histogram"
    max_series: int = MAX_SERIES

    @classmethod
    def of(cls, environ: Mapping[str, str], max_series: int = MAX_SERIES) -> Self:
        return cls(
            _environment.choice(environ, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"),
            _environment.choice(environ, "OTEL_METRICS_EXEMPLAR_FILTER"),
            _environment.choice(environ, "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"),
            max(1, max_series),
        )

    @property
    def delta(self) -> bool:
        """Whether counters and histograms tell only what is new."""
        return self.temporality != "cumulative"


def culprit(attributes: Iterable[Attributes]) -> tuple[str, int]:
    """The attribute that has the most distinct values, and how many."""
    values: dict[str, set[str]] = {}
    for labels in attributes:
        for key, value in labels:
            values.setdefault(key, set()).add(repr(value))
    return max(((key, len(found)) for key, found in values.items()), key=lambda found: found[1], default=("", 0))


def overflow_warning(instrument: str, limit: int, attributes: Iterable[Attributes]) -> str:
    key, count = culprit(attributes)
    return (
        f"the metric {instrument} has {limit} series, which is the most; further ones are added up in one (otel.metric.overflow). "
        f"The attribute {key!r} has the most values: {count}"
    )
