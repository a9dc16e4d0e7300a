"""The probe: load the configuration, record, send, and write down what is found. Started by ``patient``, which may kill it.

What is known is written after every step, so that a step that hangs takes nothing along.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _environment, _guard, _setup
from chegou_otel._version import __version__
from chegou_otel.cli.diagnosis import configuration, places, trials
from chegou_otel.delivery import ledger, status
from chegou_otel.delivery.frames import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from chegou_otel._setup import Telemetry
    from chegou_otel.delivery.endpoints import Endpoint
    from chegou_otel.delivery.ledger import Account
    from chegou_otel.delivery.recorder import Recorder

_RESOURCE: Final = ("service.name", "service.version", "deployment.environment.name", "service.instance.id", "host.name")


class Report:
    """The facts so far, in a file that is always whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.facts: dict[str, Any] = {"step": "start"}

    def write(self, step: str, **facts: Any) -> None:
        """``step`` is what comes next."""
        self.facts.update(facts, step=step)
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(self.facts, default=str), encoding="utf-8")
        draft.replace(self._path)


def main(path: str, settings: str, flush_seconds: str) -> None:
    report = Report(Path(path))
    report.write("loading the configuration", versions={"chegou-otel": __version__, **configuration.versions()})
    loaded = configuration.load(settings or None)
    telemetry = _setup.current()
    assert telemetry is not None  # noqa: S101 - load() has set it up
    recorder = telemetry.runtime.recorder
    if telemetry.runtime.switch is not None:
        telemetry.runtime.switch.look()
    left = [_left(each) for each in status.left(recorder.pool)]
    report.write("the trials", configuration=loaded, left=left, wired=wired(telemetry))
    correlation = f"doctor-{secrets.token_hex(8)}"
    if telemetry.silence is None:
        report.write("the request", correlation_id=correlation, tried={})
        try_all(report, telemetry, correlation, django=loaded["django"])
        report.write("sending")
        recorder.flush(float(flush_seconds))
    report.write("the end", **outcome(telemetry))
    telemetry.shutdown(0.2)
    report.write("", finished=True)


def try_all(report: Report, telemetry: Telemetry, correlation: str, *, django: bool) -> None:
    trials_by_name: dict[str, tuple[str, Callable[[], str]]] = {
        "request": ("traces", lambda: trials.request(correlation, django=django)),
        "job": ("traces", lambda: trials.job(telemetry.runtime, correlation)),
        "log line": ("logs", lambda: trials.log_line(correlation)),
    }
    for name, (signal, trial) in trials_by_name.items():
        before = _created(telemetry, signal)
        try:
            how, error = trial(), ""
        except Exception as failure:
            how, error = "", f"{type(failure).__name__}: {failure}"
        told = {"how": how, "error": error, "recorded": _created(telemetry, signal) - before}
        report.write(f"after the {name}", tried={**report.facts["tried"], name: told})


def _created(telemetry: Telemetry, signal: str) -> int:
    return telemetry.runtime.recorder.ledger()[signal].created


def wired(telemetry: Telemetry) -> dict[str, Any]:
    """What is set up, as it is in force."""
    runtime = telemetry.runtime
    recorder = runtime.recorder
    resource = getattr(runtime.tracer_provider, "resource", None)
    sampler = getattr(runtime.tracer_provider, "sampler", None)
    return {
        "resource": {key: resource.attributes[key] for key in _RESOURCE if resource and key in resource.attributes},
        "role": runtime.role,
        "idle": telemetry.silence,
        "installed": list(telemetry.installed),
        "skipped": telemetry.skipped,
        "warnings": list(telemetry.warnings),
        "signals": {ledger.NAMES[signal]: _signal(telemetry, signal, recorder.endpoints.get(signal)) for signal in Signal},
        "storage": _storage(recorder),
        "sampling": sampler.get_description() if sampler is not None else "",
    }  # fmt: skip


def _signal(telemetry: Telemetry, signal: Signal, way: Endpoint | None) -> dict[str, Any]:
    settings = telemetry.runtime.settings
    return {
        "on": bool(getattr(settings, signal.name.lower())) and not _environment.is_off(os.environ, signal.name),
        "endpoint": way.shown if way else "",
        "protocol": way.protocol if way else "",
        "compression": way.compression if way else "",
        "headers": sorted(way.headers) if way else [],
        "timeout": way.timeout if way else 0,
    }


def _storage(recorder: Recorder) -> dict[str, Any]:
    storage = recorder.storage
    lasts, enough = places.lasting(storage.path) if storage.path else ("gone with each process", False)
    size = recorder.pool.size * recorder.pool.maximum
    return {"kind": storage.kind, "path": storage.path, "reason": storage.reason, "lasts": lasts, "enough": enough, "bytes": size}


def outcome(telemetry: Telemetry) -> dict[str, Any]:
    """What became of it."""
    recorder = telemetry.runtime.recorder
    books = status.books(recorder)
    mine = ledger.snapshot([each.longs for each in (*recorder.pool.own, *recorder.pool.out, *recorder.pool.idle)])
    return {
        "contacts": {signal: _contact(each) for signal, each in status.contacts(recorder).items()},
        "ledger": {signal: _account(each) for signal, each in (books.own if books else recorder.ledger()).items()},
        "held": {signal: each.held for signal, each in mine.items()},
        "backlog": {signal: each.held - mine[signal].held for signal, each in recorder.ledger().items()},
        "storage": _storage(recorder),
        "failures": dict(_guard.failures),
    }


def _contact(contact: status.Contact) -> dict[str, Any]:
    return {"endpoint": contact.endpoint, "delivered": bool(contact.delivered_at), "failing": contact.failing, "failure": contact.failure,
            "skew": contact.skew}  # fmt: skip


def _account(account: Account) -> dict[str, Any]:
    return {"created": account.created, "delivered": account.delivered, "rejected": account.rejected, "dropped": account.dropped}


def _left(found: status.Left) -> dict[str, Any]:
    accounts = {signal: {**_account(each), "held": each.held} for signal, each in found.accounts.items() if each.created}
    return {"pid": found.pid, "alive": found.alive, "accounts": accounts}


if __name__ == "__main__":
    given = sys.argv[1:4]
    sys.argv[:] = ["chegou-otel", "doctor"]  # what a service without a name is called after
    code = 1
    try:
        main(*given)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # whatever threads the application has started
