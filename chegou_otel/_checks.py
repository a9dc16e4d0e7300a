"""What only the owner of a setting can judge: names, patterns, rules."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import integrations
from chegou_otel.delivery import folder
from chegou_otel.integrations import _categories
from chegou_otel.propagation import hosts
from chegou_otel.redaction import Redactor
from chegou_otel.signals import rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chegou_otel._settings import Settings

_CHECKS: Final[dict[str, Callable[[str], object]]] = {
    "integrations": integrations.check_name,
    "disabled_integrations": integrations.check_name,
    "redact_keys": lambda key: Redactor(keys=(key,)),
    "redact_allow_keys": lambda key: Redactor(allow_keys=(key,)),
    "redact_patterns": lambda pattern: Redactor(patterns=(pattern,)),
    "propagate_to": hosts.host_pattern,
    "trust_from": hosts.network,
    "rq_job_categories": _categories.parse,
    "sampling": rules.parse,
}


def usable(settings: Settings, arguments: Mapping[str, Any], warnings: list[str]) -> Settings:
    """Names and patterns that only their owners can judge: wrong ones raise as arguments, and are left out with a warning otherwise."""
    found: dict[str, Any] = {}
    for name, check in _CHECKS.items():
        good = []
        for item in getattr(settings, name) or ():
            try:
                check(item)
                good.append(item)
            except ValueError as error:
                if name in arguments:
                    raise
                warnings.append(f"CHEGOU_OTEL_{name.upper()}: {item!r} is ignored ({error})")
        if len(good) < len(getattr(settings, name) or ()):
            found[name] = tuple(good) or (None if name == "integrations" else ())
    reason = folder.trouble(settings.spool_dir) if settings.spool_dir else ""
    if reason:
        warnings.append(f"spool_dir={settings.spool_dir!r} is not used ({reason}); what is not delivered yet lies in the default place")
    return dataclasses.replace(settings, **found)
