"""``/health/``: how telemetry is in this process, as JSON. It asks nobody, waits for nothing, and is not traced."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from django.http import JsonResponse

from chegou_otel import _guard, _setup
from chegou_otel._version import __version__
from chegou_otel.delivery import status
from chegou_otel.integrations.django.exchange import current

if TYPE_CHECKING:
    from django.http import HttpRequest

    from chegou_otel._setup import Telemetry

OK: Final = "ok"
DEGRADED: Final = "degraded"
OFF: Final = "off"
_UNAVAILABLE: Final = 503


def health(request: HttpRequest) -> JsonResponse:
    """200 whatever the state, for a load balancer must not take an application away for its telemetry; ``?strict=1`` asks for 503."""
    exchange = current.get()
    if exchange is not None:
        exchange.leave_out()
    try:
        told = report()
    except Exception as error:
        _guard.pass_foreign(error)
        _guard.report("chegou_otel.app.health", error)
        told = {"status": DEGRADED, "timestamp": _iso(datetime.now(UTC).timestamp()), "telemetry": None}
    strict = request.GET.get("strict", "").lower() in ("1", "true", "yes")
    answer = JsonResponse(told, status=_UNAVAILABLE if strict and told["status"] != OK else 200)
    answer["Cache-Control"] = "no-store"
    return answer


health.login_required = False  # type: ignore[attr-defined]  # LoginRequiredMiddleware lets it pass


def report() -> dict[str, Any]:
    """The state, without anything secret: no headers, no credentials."""
    telemetry = _setup.current()
    told: dict[str, Any] = {"status": OFF, "timestamp": _iso(datetime.now(UTC).timestamp()), "telemetry": None}
    if telemetry is None:
        return told
    resource = getattr(telemetry.runtime.tracer_provider, "resource", None)
    attributes = resource.attributes if resource is not None else {}
    state = _telemetry(telemetry)
    if telemetry.silence is None:
        failing = any(each["failing"] for each in state["endpoints"].values())
        told["status"] = DEGRADED if failing or state["storage"]["pressure"] else OK
    return {
        **told,
        "service": attributes.get("service.name"),
        "version": attributes.get("service.version"),
        "environment": attributes.get("deployment.environment.name"),
        "telemetry": state,
    }


def _telemetry(telemetry: Telemetry) -> dict[str, Any]:
    recorder = telemetry.runtime.recorder
    storage = recorder.storage
    return {
        "distribution": __version__,
        "off": telemetry.silence,
        "installed": list(telemetry.installed),
        "skipped": telemetry.skipped,
        "warnings": list(telemetry.warnings),
        "storage": {
            "kind": storage.kind,
            "path": storage.path,
            "reason": storage.reason,
            "bytes": recorder.pool.size * recorder.pool.maximum,
            "pressure": recorder.pool.floor() > 0,
        },
        "endpoints": {signal: _endpoint(telemetry, each) for signal, each in status.contacts(recorder).items()},
        "ledger": _ledger(telemetry),
        "failures": dict(_guard.failures),
    }


def _endpoint(telemetry: Telemetry, contact: status.Contact) -> dict[str, Any]:
    return {
        "endpoint": contact.endpoint,
        "failing": contact.failing,
        "delivered_at": _iso(contact.delivered_at),
        "failed_at": _iso(contact.failed_at),
        # What the other side said is quoted in it.
        "failure": telemetry.runtime.redactor.value("failure", contact.failure) if contact.failure else None,
    }


def _ledger(telemetry: Telemetry) -> dict[str, Any] | None:
    books = status.books(telemetry.runtime.recorder)
    if books is None:
        return None
    return {
        signal: {
            "created": account.created,
            "adopted": books.adopted[signal].held,
            "delivered": account.delivered,
            "rejected": account.rejected,
            "dropped": account.dropped,
            "held": books.held(signal),
            "ambiguous": account.ambiguous,
        }
        for signal, account in books.own.items()
    }


def _iso(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
