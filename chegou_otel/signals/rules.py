"""Rules of sampling, as data: ``GET /reports/*=1.0``, ``job:shop.tasks.*=0.1``, ``*=0.25``. The first that fits decides.

They are asked for local roots only: a request, a job, a command, whatever has no parent in this process. What happens below follows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import SpanKind, get_current_span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context

#: What ``health`` stands for: where probes usually knock. Each with and without a slash at its end.
HEALTH: Final = (
    "/health", "/health/live", "/health/ready", "/healthz", "/healthcheck", "/_health", "/livez", "/readyz", "/live", "/ready",
    "/alive", "/ping",
)  # fmt: skip
_SHAPE: Final = (
    "a rule is what=ratio, such as 'GET /reports/*=1.0'; what is a path (with a method before it or none), job:<function>, "
    "queue:<name>, command:<name>, health, errors or *"
)
_ERRORS: Final = "errors"
_ALL: Final = "*"
_METHOD: Final = "[A-Z_]+"
#: What is named by a word in front, and what it looks like in a root's description.
_NAMED: Final = {"job": "job {} in .*", "queue": "job [^ ]* in {}", "command": "command {}"}
_REQUEST: Final = re.compile(r"(?:([A-Z]+)\s+)?([/*].*)", re.DOTALL).fullmatch
#: A parameter in a route's template, or anything.
_WILD: Final = re.compile(r"<(?:(?P<converter>\w+):)?\w+>|\*")
_CONVERTERS: Final = {"path": ".+", "int": "[0-9]+"}
_MAX_PATH: Final = 1_024


class Rule(NamedTuple):
    """One line of the setting: what it is about, as a regular expression for a root's description, and which share is recorded."""

    what: str
    pattern: str
    ratio: float


def parse(item: str) -> Rule:
    """An item of the setting ``sampling``.

    Raises:
        ValueError: it does not look like one.
    """
    what, equals, ratio = (part.strip() for part in item.rpartition("="))
    if not (equals and what and ratio):
        raise ValueError(f"{item!r} is no rule: {_SHAPE}")
    try:
        share = float(ratio)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{ratio!r} in {item!r} is no ratio: use a number from 0 (never) to 1 (always)")
    return Rule(what, _pattern(what, item), share)


def _pattern(what: str, item: str) -> str:
    if what in (_ALL, _ERRORS):
        return ".*"
    if what == "health":
        return f"request {_METHOD} (?:{'|'.join(map(re.escape, HEALTH))})/?"
    kind, _, name = what.partition(":")
    if kind in _NAMED and name.strip():
        return _NAMED[kind].format(_wild(name.strip(), "[^ ]*"))
    found = _REQUEST(what)
    if found is None:
        raise ValueError(f"{item!r} is no rule: {_SHAPE}")
    return f"request {found[1] or _METHOD} {_wild(found[2], '.*')}"


def _wild(text: str, anything: str) -> str:
    """``text`` as a regular expression: ``*`` is anything, ``<int:pk>`` one part of a path."""
    found, last = "", 0
    for wild in _WILD.finditer(text):
        stands_for = anything if wild[0] == "*" else _CONVERTERS.get(wild["converter"] or "", "[^/]+")
        found += re.escape(text[last : wild.start()]) + stands_for
        last = wild.end()
    return found + re.escape(text[last:])


class RuleSampler(Sampler):
    """The rules, over the sampler that the environment names, which decides where no rule fits.

    A rule that names a route, a job, a queue or a command decides whatever the caller decided; ``*`` only where nobody did. Ratios
    are of the trace ID, as everywhere: whoever has the same ratio decides the same.
    """

    def __init__(self, rules: Sequence[Rule], base: Sampler) -> None:
        self.base = base
        bound = TraceIdRatioBased.get_bound_for_rate
        self.errors = next((bound(rule.ratio) for rule in rules if rule.what == _ERRORS), 0)
        asked = [rule for rule in rules if rule.what != _ERRORS]
        # One expression: the group that matched is the first rule that fits.
        self._find = re.compile("|".join(f"({rule.pattern})" for rule in asked) or "(?!)", re.DOTALL).fullmatch
        self._rules = [(rule.what, bound(rule.ratio)) for rule in asked]

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, kind: SpanKind | None = None, attributes: Any = None,
        links: Any = None, trace_state: Any = None,
    ) -> SamplingResult:  # fmt: skip
        parent = get_current_span(parent_context).get_span_context()
        state = parent.trace_state if parent.is_valid else None
        if parent.is_valid and not parent.is_remote:
            return SamplingResult(Decision.RECORD_AND_SAMPLE if parent.trace_flags.sampled else Decision.DROP, None, state)
        found = self._find(_description(kind, attributes or {}))
        what, bound = self._rules[found.lastindex - 1] if found is not None and found.lastindex else ("", 0)
        if what == _ALL and parent.is_valid:
            yes = bool(parent.trace_flags.sampled)
        elif what:
            yes = _low(trace_id) < bound
        else:
            said = self.base.should_sample(parent_context, trace_id, name, kind, attributes, links)
            yes = said.decision is Decision.RECORD_AND_SAMPLE
        if yes:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, None, state)
        # What a rule names and rules out is never told; the rest may be when it fails.
        never = bound == 0 and what not in ("", _ALL)
        return SamplingResult(Decision.DROP if never or _low(trace_id) >= self.errors else Decision.RECORD_ONLY, None, state)

    def get_description(self) -> str:
        rules = ", ".join(what for what, _ in self._rules)
        return f"RuleSampler{{{rules}; {self.base.get_description()}}}"


def _low(trace_id: int) -> int:
    return trace_id & TraceIdRatioBased.TRACE_ID_LIMIT


def _description(kind: SpanKind | None, attributes: Mapping[str, Any]) -> str:
    """What a root says of itself, by the attributes of the semantic conventions; upstream's Django instrumentation has the old ones."""
    if kind is SpanKind.SERVER:
        path = attributes.get("url.path") or attributes.get("http.target") or "/"
        return f"request {attributes.get('http.request.method') or attributes.get('http.method')} {path[:_MAX_PATH]}"
    if kind is SpanKind.CONSUMER or kind is SpanKind.PRODUCER:
        return f"job {attributes.get('rq.job.function', '')} in {attributes.get('messaging.destination.name', '')}"
    return f"command {attributes.get('chegou.command', '')}"
