"""What may be wrong, and what mends it: one row each. A problem makes the exit code 1, a note does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chegou_otel.integrations import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Facts = dict[str, Any]


class Finding(NamedTuple):
    """One line under TO FIX."""

    what: str
    fix: str
    problem: bool = True


_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SKEW_SECONDS: Final = 5.0

#: What a failed delivery says → what it means, and what mends it. The first that fits counts.
DELIVERY: Final[tuple[tuple[str, str, str], ...]] = (
    (r"refused", "nothing listens on {origin}", f"start one with: chegou-otel dev; or set {_ENDPOINT} to your collector's address"),
    (r"HTTP 40[13]|gRPC (UNAUTHENTICATED|PERMISSION_DENIED)", "{origin} does not let us in ({reason})",
     "set OTEL_EXPORTER_OTLP_HEADERS, such as authorization=Bearer%20<token>"),
    (r"HTTP 40[45]|gRPC UNIMPLEMENTED", "{endpoint} is no OTLP address ({reason})",
     f"{_ENDPOINT} is the base address, without /v1/traces; its usual port is 4318"),
    (r"redirect", "{endpoint} redirects ({reason})", f"set {_ENDPOINT} to the address that it leads to"),
    (r"no HTTP", "{origin} speaks no HTTP: OTLP/gRPC, perhaps",
     f"set {_ENDPOINT} to the port of OTLP/HTTP, usually 4318, or OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
    (r"no OTLP", "{endpoint} answers, and is no OTLP receiver ({reason})", f"look at what stands at {_ENDPOINT}: a proxy, a login page?"),
    (r"(?i)hostname mismatch|ip address mismatch|doesn't match|not valid for", "the certificate of {origin} is for another name",
     f"set {_ENDPOINT} to a name that the certificate holds"),
    (r"CERTIFICATE_VERIFY_FAILED|self.signed", "the certificate of {origin} is not trusted ({reason})",
     "set OTEL_EXPORTER_OTLP_CERTIFICATE to the PEM file of its authority"),
    (r"(?i)wrong_version_number|record layer", "{origin} speaks no TLS", f"let {_ENDPOINT} begin with http://"),
    (r"(?i)name or service|no address|nodename|name resolution|looking up|not known", "there is no host for {origin} ({reason})",
     f"correct the name in {_ENDPOINT}"),
    (r"(?i)timed out|deadline|timeout", "{origin} does not answer in time",
     f"see whether the collector hangs or a firewall drops what comes; {_ENDPOINT} names it"),
    (r"HTTP (429|5\d\d)|gRPC (UNAVAILABLE|RESOURCE_EXHAUSTED)", "{endpoint} cannot take it now ({reason})",
     "see the collector's log: overloaded, or what is behind it is down"),
    (r"HTTP 4\d\d", "{endpoint} refuses what is sent ({reason})", "see the collector's log for why"),
    (r"", "{endpoint} does not take telemetry ({reason})", f"see the collector's log, and {_ENDPOINT}"),
)  # fmt: skip


def findings(facts: Facts) -> list[Finding]:
    """Everything, problems first; the same thing once."""
    found = {each.what: each for check in CHECKS for each in check(facts)}
    return sorted(found.values(), key=lambda each: not each.problem)


def _stuck(facts: Facts) -> Iterator[Finding]:
    if "stuck" in facts:
        lines = [line for line in facts["said"].splitlines() if line.strip()]
        how = f"ended at: {facts['stuck']}" if facts["code"] not in (-9, 0) else f"was not done in time with: {facts['stuck']}"
        yield Finding(
            f"the probe {how}{f' ({lines[-1].strip()})' if lines else ''}", "give it more time with --timeout 60; or mend what it says"
        )


def _configuration(facts: Facts) -> Iterator[Finding]:
    loaded = facts.get("configuration")
    if loaded is None:
        return
    if loaded["error"]:
        yield Finding(f"Django does not start with {loaded['settings']}: {loaded['error']}",
                      "run doctor where manage.py runs; name the module with --settings or DJANGO_SETTINGS_MODULE")  # fmt: skip
    elif loaded["by"] == "doctor" and loaded["settings"]:
        yield Finding(f"nothing in {loaded['settings']} calls chegou_otel.setup(): this is what `chegou-otel run` would do",
                      "end the settings module with chegou_otel.setup(), or start with: chegou-otel run -- <command>", False)  # fmt: skip
    elif not loaded["settings"]:
        yield Finding("no Django project here: a script's configuration is what the environment says",
                      "in a project, run doctor beside manage.py, or set DJANGO_SETTINGS_MODULE", False)  # fmt: skip


#: What switches telemetry on again, by a word of why it is off.
_ON_AGAIN: Final = {
    "OTEL_SDK_DISABLED": "unset OTEL_SDK_DISABLED",
    "off since": "chegou-otel on <service>, or chegou-otel on for all services",
}


def _off(facts: Facts) -> Iterator[Finding]:
    wired = facts.get("wired")
    if wired is None:
        return
    if wired["idle"]:
        mend = next((mend for word, mend in _ON_AGAIN.items() if word in wired["idle"]), "set CHEGOU_OTEL_ACTIVE=auto, or always")
        yield Finding(f"telemetry is off: {wired['idle']}", mend)
    for signal, each in wired["signals"].items():
        if not each["on"]:
            variable = f"OTEL_{signal.upper()}_EXPORTER and CHEGOU_OTEL_{signal.upper()}"
            yield Finding(f"{signal} are off", f"if that is not meant: {variable} switch them", False)
    for warning in wired["warnings"]:
        yield Finding(warning, "correct it, or unset it", False)
    for name, reason in wired["skipped"].items():
        if name not in TABLE:
            yield Finding(f"{name}: {reason}", "see docs/troubleshooting.md", False)


def _tried(facts: Facts) -> Iterator[Finding]:
    for name, each in facts.get("tried", {}).items():
        if each["error"]:
            yield Finding(f"the {name} failed: {each['error']}", "mend that first; it is the application's own")
        elif not each["recorded"]:
            signal = "logs" if name == "log line" else "traces"
            if facts["wired"]["signals"][signal]["on"]:
                sampling = facts["wired"]["sampling"]
                why = "LOGGING lets no warning pass" if signal == "logs" else f"sampled out by {sampling}"
                fix = (
                    "let LOGGING's root take WARNING"
                    if signal == "logs"
                    else "for a sure answer: OTEL_TRACES_SAMPLER=always_on chegou-otel doctor"
                )
                yield Finding(f"the {name} recorded nothing: {why}", fix, signal == "logs")


def _delivery(facts: Facts) -> Iterator[Finding]:
    for signal, contact in facts.get("contacts", {}).items():
        if contact["failing"]:
            yield _explained(contact)
        elif facts["held"].get(signal) and not contact["delivered"]:
            yield _explained({**contact, "failure": "timed out"})  # it still waits for its first answer
        elif facts["held"].get(signal):
            yield Finding(f"{facts['held'][signal]} {signal} were not sent in time", "give it more time with --timeout 60")
        skew = contact["skew"]
        if skew is not None and abs(skew) > _SKEW_SECONDS:
            ahead = "behind" if skew > 0 else "ahead of"
            yield Finding(f"this machine's clock is {abs(skew):.0f} s {ahead} the receiver's", "synchronise it: timedatectl set-ntp true")


def _arrival(facts: Facts) -> Iterator[Finding]:
    where = facts["backend"]["where"]
    missing = [name for name, seen in facts["backend"]["seen"].items() if not seen]
    if where and missing:
        yield Finding(f"{', '.join(missing)}: the collector took it, and it is not in {where}",
                      "see the collector's exporters and its log; or name the right backend with CHEGOU_OTEL_QUERY_URL")  # fmt: skip


def _explained(contact: dict[str, Any]) -> Finding:
    for pattern, what, fix in DELIVERY:
        if re.search(pattern, contact["failure"]):
            scheme, _, host, *_ = contact["endpoint"].split("/")
            return Finding(what.format(origin=f"{scheme}//{host}", endpoint=contact["endpoint"], reason=contact["failure"][:160]), fix)
    raise AssertionError("the last row fits everything")


def _lost(facts: Facts) -> Iterator[Finding]:
    for signal, account in facts.get("ledger", {}).items():
        if account["rejected"]:
            yield Finding(f"{account['rejected']} {signal} of this run were rejected", "see the collector's log for why")
        for reason, count in account["dropped"].items():
            yield Finding(f"{count} {signal} of this run were dropped ({reason})", "see docs/delivery.md, When the spool fills up")
    for where, count in facts.get("failures", {}).items():
        yield Finding(f"chegou_otel failed {count} times in {where}", "report it with what the log says about it")


def _storage(facts: Facts) -> Iterator[Finding]:
    wired = facts.get("wired")
    storage = facts.get("storage") or (wired or {}).get("storage")
    if not storage or not wired or wired["idle"]:
        return
    mend = "set CHEGOU_OTEL_SPOOL_DIR to a folder that this user may write to"
    if storage["kind"] != "disk":
        yield Finding(f"what is not delivered lies in memory, and ends with its process ({storage['reason'] or 'no folder'})", mend)
    elif storage["reason"]:
        yield Finding(f"the spool is not where it was meant to be ({storage['reason']})", mend)
    elif not storage["enough"]:
        yield Finding(
            f"the spool does not last: {storage['lasts']}", "put it on a volume: CHEGOU_OTEL_SPOOL_DIR=<folder of a volume>", False
        )


CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    _stuck, _configuration, _off, _delivery, _arrival, _tried, _lost, _storage,
)  # fmt: skip
