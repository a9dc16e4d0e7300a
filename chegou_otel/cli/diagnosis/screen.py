"""One screen of plain text."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.integrations import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chegou_otel.cli.diagnosis.findings import Finding

    Facts = dict[str, Any]

_LABEL: Final = 16
_WIDTH: Final = 118
_MIB: Final = 1 << 20
_PARENT_BASED: Final = re.compile(r"ParentBased\{root:([^,]+),.*")


def render(facts: Facts, found: Sequence[Finding]) -> str:
    """What is wired, skipped, tried, lost, and to fix."""
    lines = [_title(facts)]
    for name, rows in (("WIRED", _wired(facts)), ("SKIPPED", _skipped(facts)), ("TRIED", _tried(facts)), ("LOST", _lost(facts))):
        if made := list(rows):
            lines += ["", name, *(line for row in made for line in _row(*row))]
    lines += ["", "TO FIX", *_to_fix(found)]
    if facts.get("correlation_id"):
        when = "look at it" if any(each["delivered"] for each in facts.get("contacts", {}).values()) else "once it is delivered"
        lines += ["", f"{when}: {facts['backend']['command'] or 'chegou-otel find ' + facts['correlation_id']}"]
    return "\n".join(lines)


def _row(label: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, _WIDTH - _LABEL - 2, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"  {label:<{_LABEL}}{wrapped[0]}", *(f"  {'':<{_LABEL}}{line}" for line in wrapped[1:])]


def _title(facts: Facts) -> str:
    versions = facts.get("versions", {})
    shown = [f"{name} {versions[name]}" for name in ("python", "django", "rq", "opentelemetry-sdk") if name in versions]
    return " · ".join([f"chegou-otel doctor {versions.get('chegou-otel', '')}".rstrip(), *shown])


def _wired(facts: Facts) -> Iterator[tuple[str, str]]:
    wired, loaded = facts.get("wired"), facts.get("configuration")
    if not wired or not loaded:
        return
    resource = wired["resource"]
    yield "set up by", loaded["by"] if loaded["by"] != "doctor" else "doctor, from the environment"
    environment = resource.get("deployment.environment.name", "no environment")
    yield "service", f"{resource.get('service.name', '?')} {resource.get('service.version', '(no version)')}, {environment}"
    if wired["idle"]:
        yield "sending", f"nothing: {wired['idle']}"
        return
    for signal, each in wired["signals"].items():
        headers = f", headers: {', '.join(each['headers'])}" if each["headers"] else ""
        yield signal, f"{each['protocol']} → {each['endpoint']}{headers}  {_state(facts, signal)}" if each["on"] else "off"
    storage = facts.get("storage") or wired["storage"]
    yield "spool", f"{storage['path'] or storage['kind']} ({storage['lasts']}), {storage['bytes'] // _MIB} MiB per process"
    yield "sampling", _PARENT_BASED.sub(r"parent-based, root: \1", wired["sampling"]) or "of a provider that is not ours"
    yield "integrations", ", ".join(_versioned(name, facts["versions"]) for name in wired["installed"]) or "none"


def _state(facts: Facts, signal: str) -> str:
    contact = facts.get("contacts", {}).get(signal)
    if contact is None:
        return ""
    if contact["failing"]:
        return "✗ not delivered"
    return "✓ delivered" if contact["delivered"] else "- nothing was sent"


def _versioned(name: str, versions: dict[str, str]) -> str:
    names = [requirement.partition(">=")[0] for requirement in TABLE[name].requires] if name in TABLE else []
    version = next((versions[each] for each in names if each in versions), "")
    return f"{name} {version}".strip()


def _skipped(facts: Facts) -> Iterator[tuple[str, str]]:
    """Names with the same reason on one line."""
    missing, others = [], []
    for name, reason in facts.get("wired", {}).get("skipped", {}).items():
        if reason.endswith("is not installed"):
            missing.append(name)
        else:
            others.append((name, reason))
    if missing:
        yield "not installed", ", ".join(missing)
    yield from others


def _tried(facts: Facts) -> Iterator[tuple[str, str]]:
    for name, each in facts.get("tried", {}).items():
        yield name, f"{each['how'] or each['error']}: {_fate(facts, name, each)}"
    if facts.get("tried"):
        yield "correlation ID", facts["correlation_id"]


def _fate(facts: Facts, name: str, told: dict[str, Any]) -> str:
    backend, signal = facts["backend"], "logs" if name == "log line" else "traces"
    if not told["recorded"]:
        return "nothing was recorded"
    if backend["seen"].get(name):
        return f"✓ arrived ({backend['where']})"
    contact = facts.get("contacts", {}).get(signal)
    if contact is None or contact["failing"] or facts["held"].get(signal):
        kept = facts.get("storage", {}).get("kind") == "disk"
        return "✗ not delivered; kept in the spool" if kept else "✗ not delivered, and there is no spool on disk to keep it"
    if backend["where"] and name in backend["seen"]:
        return f"✗ the collector took it, and it is not in {backend['where']}"
    return "✓ the collector took it (OTLP success); there is no backend to ask"


def _lost(facts: Facts) -> Iterator[tuple[str, str]]:
    """This run, the service's other processes on this host, and what those that are gone have left."""
    lost: dict[tuple[str, str], int] = {}
    left = facts.get("left", [])
    accounts = [*facts.get("ledger", {}).items(), *(pair for each in left for pair in each["accounts"].items())]
    for signal, account in accounts:
        reasons = {**account["dropped"], "rejected": account["rejected"]}
        for reason, count in reasons.items():
            lost[signal, reason] = lost.get((signal, reason), 0) + count
    for (signal, reason), count in lost.items():
        if count:
            yield signal, f"{count} ({reason})"
    if "ledger" in facts and not any(lost.values()):
        yield "nothing", "as far as the ledgers on this host tell"
    if waiting := sum(account["held"] for each in left if not each["alive"] for account in each["accounts"].values()):
        yield "not lost", f"{waiting} items of processes that are gone: any process of the service sends them, this one has begun to"


def _to_fix(found: Sequence[Finding]) -> Iterator[str]:
    if not found:
        yield "  nothing"
    for each in found:
        yield from _row("✗ problem" if each.problem else "· note", each.what)
        yield from _row("", f"→ {each.fix}")
