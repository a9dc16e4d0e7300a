"""Whether a span is recorded: which questions need not be asked, the general way, and what an unsampled span is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from opentelemetry.context import Context, create_key
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, TraceIdRatioBased, _get_from_env_or_default
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation import _SPAN_KEY

from chegou_otel.signals.rules import RuleSampler, parse
from chegou_otel.signals.spans import QuietSpan, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace.sampling import Sampler

    from chegou_otel.signals.encoding import Static
    from chegou_otel.signals.tracing import State, Tracer

#: On the span of something unsampled that failed: nothing that happened below it was recorded.
UNSAMPLED: Final = "chegou_otel.unsampled"
#: In a context: the trace ID and the function of a job, for the sampler alone. Whatever it says, the job's end is somebody's to know,
#: so its span is one that takes notes.
HINT: Final = create_key("chegou-otel-sampling-hint")
_SAMPLED: Final = 1
_KINDS: Final = list(SpanKind)
_new = object.__new__


@final
class Unsampled(Span):
    """A local root that is recorded and not sampled: what happens below it is not, and itself it is told only when it failed."""

    #: Whether a rule wants it told then.
    kept = False
    _quiet: QuietSpan | None = None

    def quiet(self) -> QuietSpan:
        """What stands for it as a parent of spans that nobody records."""
        if self._quiet is None:
            self._quiet = dropped(self.get_span_context())
        return self._quiet

    def _record(self) -> None:
        if self.kept and self._status.status_code is StatusCode.ERROR:
            self.extra[UNSAMPLED] = True
            super()._record()


def dropped(context: SpanContext) -> QuietSpan:
    """The span of something that a sampler ruled out."""
    span = QuietSpan(context)
    span.dropped = True
    return span


def sampler(rules: Sequence[str]) -> Sampler:
    """What ``OTEL_TRACES_SAMPLER`` names, below our own rules when there are any."""
    base = _get_from_env_or_default()
    return RuleSampler([parse(rule) for rule in rules], base) if rules else base


def judge(state: State, sampler: Sampler, ids: object) -> None:
    """Which questions need not be asked: local children follow, and most samplers say yes or no to whole kinds of roots."""
    plain = type(ids) is RandomIdGenerator
    parented = _is_parent_based(sampler)
    rules = type(sampler) is RuleSampler
    by_id = rules or type(sampler) is TraceIdRatioBased
    state.fast = plain and (sampler is ALWAYS_ON or by_id or (parented and _delegate(sampler, "local_parent_sampled") is ALWAYS_ON))
    state.follows = sampler is ALWAYS_OFF or by_id or (parented and _delegate(sampler, "local_parent_not_sampled") is ALWAYS_OFF)
    state.fast_root = plain and (sampler is ALWAYS_ON or (parented and _delegate(sampler, "root") is ALWAYS_ON))
    state.fast_remote = plain and (sampler is ALWAYS_ON or (parented and _delegate(sampler, "remote_parent_sampled") is ALWAYS_ON))


def _is_parent_based(sampler: Sampler) -> bool:
    """The SDK's, one for a ratio too, as long as it decides by the SDK's rules."""
    return isinstance(sampler, ParentBased) and type(sampler).should_sample is ParentBased.should_sample


def _delegate(sampler: Sampler, name: str) -> Any:
    return getattr(sampler, f"_{name}", None)


def asks(tracer: Any) -> bool:
    """Whether a sampler is asked for roots, or for children of sampled remote parents."""
    state = getattr(tracer, "state", None)
    return state is not None and not (state.fast_root and state.fast_remote)


def decide(
    tracer: Tracer, above: object, parent: SpanContext | None, static: Static, ctx: Context, attributes: Any, links: Any
) -> Span | QuietSpan:
    """The general way: the sampler and the ID generator are asked, as in the SDK."""
    ids = tracer.id_generator
    told: Any = {**static.attributes, **attributes} if attributes else static.attributes
    hint: Any = ctx.get(HINT)
    known, function = hint or (None, "")
    if function:
        told = {"rq.job.function": function, **told}
    if parent is not None and ctx.get(_SPAN_KEY) is not above:
        ctx = Context({**ctx, _SPAN_KEY: above})
    trace_id = parent.trace_id if parent else int.from_bytes(known) if known else ids.generate_trace_id()
    verdict = tracer.sampler.should_sample(ctx, trace_id, static.name, _KINDS[static.kind], told, links)
    random_bit = (parent.trace_flags & 2) if parent else (2 if ids.is_trace_id_random() else 0)
    flags = random_bit | (_SAMPLED if verdict.decision.is_sampled() else 0)  # type: ignore[no-untyped-call]
    if hint is None and not verdict.decision.is_recording():  # type: ignore[no-untyped-call]
        return dropped(SpanContext(trace_id, ids.generate_span_id(), False, TraceFlags(flags), verdict.trace_state))
    span: Span = _new(Span if flags & _SAMPLED else Unsampled)
    if type(span) is Unsampled:
        span.kept = verdict.decision is Decision.RECORD_ONLY and type(tracer.sampler) is RuleSampler
    span.trace_bytes = trace_id.to_bytes(16)
    span.parent_bytes = parent.span_id.to_bytes(8) if parent else b""
    span.span_bytes = ids.generate_span_id().to_bytes(8)
    span.flags = flags
    span._trace_state = verdict.trace_state or None
    span._parent_context = parent
    span._lazy_context = None
    return span


def follow(above: object) -> QuietSpan | None:
    """What a child of something unsampled is: nobody will ever see it, so it needs no identity of its own."""
    if type(above) is QuietSpan:
        return above if above.dropped else None
    return above.quiet() if type(above) is Unsampled else None
