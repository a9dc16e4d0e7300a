"""Jobs that a sampler ruled out: no span, but the truth about their end all the same.

They are counted as any other. One whose process could not tell its own end (killed, vanished, abandoned, stopped) leaves a log event
in place of its span; what failed by an exception has RQ's own log record, with the same IDs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel import correlation as _correlation
from chegou_otel._guard import guarded
from chegou_otel.integrations.rq.never_ran import name_of
from chegou_otel.signals import sampling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chegou_otel.correlation import Correlation
    from chegou_otel.integrations.rq.shape import Place

EVENT: Final = "rq.job.ended"
_TOLD: Final = ("messaging.message.id", "rq.worker.name", "rq.job.attempt")


def asked(tracer: Any, context: Context, job: Any, place: Place) -> Context:
    """``context`` with what a sampler has to know of a job: the trace that its attempts share, and its function."""
    parent = place.parent
    if (parent is None or parent.trace_flags.sampled) and not sampling.asks(tracer):
        return context
    return Context({**context, sampling.HINT: (place.trace_id, name_of(job))})


def is_told(span: Any) -> bool:
    """Whether ``span`` is a span to others when it ends with an error."""
    return type(span) is not sampling.Unsampled or span.kept


@guarded
def tell(trace: bytes, span: bytes, known: Correlation, outcome: str, words: str, facts: Mapping[str, Any]) -> None:
    """The log event about an execution without a span."""
    own = SpanContext(int.from_bytes(trace), int.from_bytes(span), False, TraceFlags(0))
    severity = SeverityNumber.INFO if outcome == "stopped" else SeverityNumber.ERROR
    get_logger("chegou_otel.rq").emit(
        context=Context({_correlation.KEY: known, _SPAN_KEY: NonRecordingSpan(own)}),
        severity_number=severity, severity_text=severity.name, body=words, event_name=EVENT, attributes=facts,
    )  # fmt: skip


def facts_of(queue: str, function: str, outcome: str, facts: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """What the event says of the job."""
    found = {"messaging.system": "rq", "messaging.destination.name": queue, "rq.job.status": outcome}
    if function:
        found["rq.job.function"] = function
    return {**found, **{key: facts[key] for key in _TOLD if key in facts}, **more}
