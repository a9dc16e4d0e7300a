"""``setup()``, the table of contents, and ``shutdown()``."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _checks, _environment, _forks, _guard, _providers, _settings, _switch, _uwsgi, integrations
from chegou_otel._runtime import Runtime
from chegou_otel._version import __version__
from chegou_otel.delivery.endpoints import endpoints
from chegou_otel.delivery.frames import Kind
from chegou_otel.delivery.otlp import resource_block
from chegou_otel.delivery.recorder import Recorder
from chegou_otel.integrations import logbridge
from chegou_otel.propagation import Propagation
from chegou_otel.redaction import Redactor
from chegou_otel.signals.bookkeeping import Bookkeeping
from chegou_otel.signals.encoding import Encoder
from chegou_otel.signals.logs import LogBridge
from chegou_otel.signals.resource import create_resource, idle_reason, of_child, role_of
from chegou_otel.signals.sampling import sampler
from chegou_otel.signals.tracing import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType
    from typing import Unpack

    from opentelemetry.sdk.resources import Resource

    from chegou_otel._settings import Options, Settings
    from chegou_otel._switch import Off

#: What a child of `multiprocessing` may take at its end, and its place behind whatever else runs there.
_CHILD_SECONDS: Final = 0.25
_LAST: Final = -100
logger = logging.getLogger("chegou_otel")
_current: Telemetry | None = None


class _Process:
    lock = _forks.FreeLock()


_process = _Process()


class Telemetry:
    """What ``setup()`` wired.

    Attributes:
        installed: Names of the integrations that are in place; one whose library is not imported yet begins with its import.
        skipped: Name → reason for everything that is not.
        idle: Why nothing is sent by this process, or ``None``.
        warnings: What was set and is not honoured.
    """

    def __init__(self, runtime: Runtime, installed: list[str], idle: str | None, arguments: Mapping[str, Any], warnings: list[str]) -> None:
        self.runtime = runtime
        self.installed = tuple(installed)
        self.idle = idle
        self.arguments = dict(arguments)
        self.warnings = tuple(warnings)

    @property
    def skipped(self) -> dict[str, str]:
        return dict(self.runtime.skipped)

    @property
    def off(self) -> Off | None:
        """Since when, by whom and where telemetry was switched off; ``None`` when it is on."""
        return None if self.runtime.switch is None else self.runtime.switch.off

    @property
    def silence(self) -> str | None:
        """Why nothing is sent at the moment: for as long as this process lives (``idle``), or because it was switched off."""
        return self.idle or (str(self.off) if self.off else None)

    def flush(self, timeout: float = 5.0) -> bool:
        """Send everything recorded so far; ``False`` when something was still held after ``timeout`` seconds of wall clock."""
        return self.runtime.recorder.flush(timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Undo every patch, send what is left within ``timeout`` seconds (default: ``exit_timeout``) and keep the rest in the spool."""
        return _shutdown(self, self.runtime.settings.exit_timeout if timeout is None else timeout)

    def __repr__(self) -> str:
        off = f", {self.off}" if self.off else ""
        return f"Telemetry(installed={list(self.installed)}, skipped={self.skipped}, idle={self.idle!r}{off})"


def setup(service_name: str | None = None, **options: Unpack[Options]) -> Telemetry:
    """Wire traces, metrics, logs, correlation and every integration whose library is installed.

    Call it at the end of ``settings.py``, in ``wsgi.py``/``asgi.py`` before the application is made, in a script, or not at all
    (``INSTALLED_APPS = ["chegou_otel", …]``, ``chegou-otel run -- <command>``). Twice is once: the second call returns the first one's
    result. It needs no collector to be there and never waits for one.

    Args:
        service_name: Name of the service; default: the package of the Django settings module.
        **options: See :class:`chegou_otel._settings.Settings`, or the settings table in the documentation.

    Raises:
        TypeError: an argument that is no setting, or of the wrong type. The message says what is right.
        ValueError: a value that is not allowed.
    """
    arguments: dict[str, Any] = dict(options) if service_name is None else {"service_name": service_name, **options}
    with _process.lock:
        return _current or start(arguments)


def shutdown(timeout: float | None = None) -> bool:
    """Shut down what ``setup()`` wired, if anything. See :meth:`Telemetry.shutdown`."""
    with _process.lock:
        return True if _current is None else _current.shutdown(timeout)


def start(arguments: Mapping[str, Any], sink: Callable[..., Any] | None = None) -> Telemetry:
    """What ``setup()`` does; with ``sink``, frames go there and nothing is sent (tests)."""
    global _current
    _hook_process()
    arguments = _settings.checked(arguments)
    settings, warnings = _settings.load(arguments)
    settings = _checks.usable(settings, arguments, warnings)
    idle = None if sink else _idle(settings)
    role = role_of(sys.argv)
    resource = create_resource(settings, role, __version__)
    recorder = _recorder(settings, resource, sink, arguments, deliver=idle is None)
    runtime = _runtime(settings, resource, role, recorder=recorder, recording=idle is None)
    logbridge.install(runtime)
    if idle is None and sink is None:
        _connect_switch(runtime, str(resource.attributes["service.name"]))
    runtime.when_imported("multiprocessing.util", _hook_children)
    installed = integrations.install_all(runtime)
    warnings += _environment.warnings(os.environ) + _uwsgi.install(runtime)
    _current = Telemetry(runtime, installed, idle, arguments, warnings)
    if idle is None and _has_metrics_only(runtime):
        recorder.start()
        _hook_metrics_only()
    for warning in warnings:
        logger.warning("%s", warning)
    return _current


def _idle(settings: Settings) -> str | None:
    """Why this process records nothing. Correlation IDs work all the same."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "OTEL_SDK_DISABLED is set"
    if settings.active == "never":
        return "active='never'"
    return idle_reason(sys.argv, os.environ) if settings.active == "auto" else None


def _recorder(
    settings: Settings, resource: Resource, sink: Callable[..., Any] | None, given: Mapping[str, Any], *, deliver: bool
) -> Recorder:
    # Only an argument stands above OTEL_EXPORTER_OTLP_<SIGNAL>_ENDPOINT; the base variable stands below it.
    recorder = Recorder(
        resource_block(dict(resource.attributes)),
        service=str(resource.attributes["service.name"]),
        endpoints=endpoints(given.get("endpoint"), os.environ, given.get("proxy")) if deliver and sink is None else None,
        spool_dir=settings.spool_dir,
        max_bytes=settings.spool_max_bytes,
        memory=settings.spool == "memory",
        sink=sink,
    )
    recorder.pool.max_age = settings.spool_max_age
    recorder.collect_interval = _environment.export_interval(os.environ)
    recorder.child_resource = lambda: resource_block(of_child(resource))
    return recorder


def _runtime(settings: Settings, resource: Resource, role: str, *, recorder: Recorder, recording: bool) -> Runtime:
    redactor = Redactor(
        keys=settings.redact_keys, allow_keys=settings.redact_allow_keys, patterns=settings.redact_patterns,
        emails=settings.redact_emails, enabled=settings.redact,
    )  # fmt: skip
    limit = functools.partial(_environment.number, os.environ)
    encoder = Encoder(
        redactor,
        limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT") or 128,
        limit("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    )
    skipped: dict[str, str] = {}
    events, links = limit("OTEL_SPAN_EVENT_COUNT_LIMIT") or 128, limit("OTEL_SPAN_LINK_COUNT_LIMIT") or 128
    state = State(recorder.append, encoder, fast=True, max_events=events, max_links=links)
    off = functools.partial(_environment.is_off, os.environ)
    state.armed = recording and settings.traces and not off("TRACES")
    metrics = _providers.registry(recorder.append if recording and settings.metrics and not off("METRICS") else _discard, settings)
    bridge = LogBridge(recorder.append, encoder)
    bridge.recording = recording and settings.logs and not off("LOGS")
    traces = _providers.tracer_provider(state, resource, sampler(settings.sampling), skipped)
    meters = _providers.meter_provider(metrics, encoder, resource, skipped)
    _providers.logger_provider(recorder.append if bridge.recording else _discard, encoder, resource, skipped)
    _providers.flush_by(recorder.flush)
    runtime = Runtime(
        settings=settings, recorder=recorder, encoder=encoder, metrics=metrics, bridge=bridge,
        propagation=Propagation(settings.propagate_to, settings.trust_from), tracer_provider=traces, meter_provider=meters,
        role=role, version=__version__, recording=recording, skipped=skipped,
    )  # fmt: skip
    if metrics.append is not _discard:
        recorder.collectors.append(Bookkeeping(recorder, metrics).collect)
    recorder.collectors.append(runtime.collect)
    recorder.at_hand.append(runtime.collect_at_hand)
    recorder.handlers[Kind.MEASUREMENT] = runtime.replay
    return runtime


def _connect_switch(runtime: Runtime, service: str) -> None:
    remote, url = None, runtime.settings.switch_redis_url
    if url:
        try:
            from chegou_otel.integrations._switch_redis import Remote

            remote = Remote(url, (_switch.KEY, f"{_switch.KEY}:{service}"))
        except Exception as error:
            _guard.pass_foreign(error)
            runtime.skipped["switch_redis_url"] = f"{type(error).__name__}: {error}"
        else:
            runtime.on_shutdown.append(remote.stop)
    runtime.switch = _switch.Switch(runtime, service, remote)
    runtime.recorder.is_off = runtime.switch.look
    runtime.switch.look()


def _has_metrics_only(runtime: Runtime) -> bool:
    """Whether no frame will ever start the courier: metrics are appended by the courier itself."""
    state = getattr(runtime.tracer_provider, "state", None)
    recorded = runtime.metrics.append is not _discard
    return recorded and not runtime.bridge.recording and not (state is not None and state.armed)


def _discard(*_frame: Any) -> bool:
    return True


def arguments() -> dict[str, Any]:
    """What ``setup()`` was called with; a spawned work-horse calls it with the same."""
    return {} if _current is None else dict(_current.arguments)


def current() -> Telemetry | None:
    """What is in force, if anything."""
    return _current


def collect_metrics() -> None:
    """Append the current state of every instrument as frames."""
    if _current is not None:
        _current.runtime.collect()


def _shutdown(telemetry: Telemetry, timeout: float) -> bool:
    global _current
    with _process.lock:
        if _current is not telemetry:
            return True
        _current = None
        runtime = telemetry.runtime
        runtime.disarm()
        done = runtime.recorder.shutdown(timeout)
        runtime.journal.close()
        for provider in (runtime.tracer_provider, runtime.meter_provider):
            if provider is not None and type(provider).__module__.startswith("chegou_otel."):
                provider.shutdown()  # type: ignore[union-attr]
        return done


@contextmanager
def replaced(overrides: Mapping[str, Any], sink: Callable[..., Any]) -> Iterator[Telemetry]:
    """For tests: for the length of a block, what is in force records into ``sink``; afterwards it is in force again as before."""
    with _process.lock:
        before = _current
        if before is not None:
            _shutdown(before, 0)
        telemetry = start({**(before.arguments if before else {}), **overrides}, sink)
    try:
        yield telemetry
    finally:
        with _process.lock:
            _shutdown(telemetry, 0)
            if before is not None:
                start(before.arguments)


def _at_exit() -> None:
    with _process.lock:
        if _current is not None:
            _guard.guarded(_current.shutdown)()


def _after_fork() -> None:
    """In a forked child: nothing of the parent's is counted again. What a work-horse forks hands over, as it does itself."""
    if _current is None:
        return
    runtime = _current.runtime
    if runtime.recorder.leaves_shipping:
        runtime.metrics.cross_to_parent()
    else:
        runtime.metrics.after_fork()
        if _forks.inherited and runtime.meter_provider is not None:
            runtime.meter_provider.add_up()


@functools.cache
def _hook_process() -> None:
    """Once per process, with the first ``setup()``."""
    atexit.register(_at_exit)
    _forks.in_child(_after_fork)
    _guard.write_calmly()


@functools.cache
def _hook_metrics_only() -> None:
    """Behind the recorder's own hook, which takes the parent's courier away."""
    _forks.in_child(_start_in_child)


def _start_in_child() -> None:
    # What a worker forks is a work-horse: its parent collects what it measures.
    if _current is not None and _current.runtime.role != "worker" and _has_metrics_only(_current.runtime):
        _guard.guarded(_current.runtime.recorder.start)()


def _at_child_exit() -> None:
    """What cannot be sent at once stays in the segment for the next process; whoever waits for this child does not wait for a collector."""
    with _process.lock:
        if _current is not None:
            safe = _current.runtime.recorder.storage.kind == "disk"
            _guard.guarded(_current.shutdown)(min(_CHILD_SECONDS, _current.runtime.settings.exit_timeout) if safe else None)


@functools.cache
def _hook_children(module: ModuleType) -> None:
    """`multiprocessing` clears what `atexit` holds in its children, such as the workers of RQ's pool: it calls this at their end."""
    module.register_after_fork(_at_child_exit, lambda at_exit: module.Finalize(None, at_exit, exitpriority=_LAST))
