"""What integrations get: tracers, metrics, settings, and the one way to patch."""

from __future__ import annotations

import functools
import inspect
import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _guard
from chegou_otel._imports import ImportHooks
from chegou_otel.delivery.journal import Journal
from chegou_otel.signals.aggregation import ADDED_UP
from chegou_otel.signals.logs import Line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from opentelemetry import trace

    from chegou_otel._settings import Settings
    from chegou_otel._switch import Switch
    from chegou_otel.delivery.recorder import Recorder
    from chegou_otel.propagation import Propagation
    from chegou_otel.redaction import Redactor
    from chegou_otel.signals.encoding import Encoder
    from chegou_otel.signals.foreign import ForeignTracer
    from chegou_otel.signals.logs import LogBridge
    from chegou_otel.signals.meter import MeterProvider
    from chegou_otel.signals.metrics import Registry
    from chegou_otel.signals.tracing import Tracer

_MISSING: Any = object()
#: How long a collection that must not wait waits for another.
_HASTE_SECONDS: Final = 0.1


@dataclass(slots=True)
class Patch:
    """One replaced attribute, and how to put it back."""

    owner: Any
    name: str
    original: Any  # as found in the owner's own __dict__; _MISSING when it was inherited
    replacement: Any

    def undo(self) -> bool:
        """Put the original back; ``False`` when somebody wrapped the replacement since, which then stays, disarmed."""
        if vars(self.owner).get(self.name) is not self.replacement:
            return False
        if self.original is _MISSING:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.original)
        return True


def _next(owner: type, name: str) -> Any:
    """What stands behind ``owner`` when an inherited method is asked for: not the same for each subclass, where there are several bases."""

    @functools.wraps(getattr(owner, name))
    def inherited(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(owner, self), name)(*args, **kwargs)

    return inherited


@dataclass(slots=True)
class Runtime:
    """One per ``setup()``. ``armed`` turns false with ``shutdown()``; every replacement asks it first."""

    settings: Settings
    recorder: Recorder
    encoder: Encoder
    metrics: Registry
    bridge: LogBridge
    propagation: Propagation
    tracer_provider: trace.TracerProvider
    meter_provider: MeterProvider | None
    role: str
    version: str
    armed: bool = True
    #: False when only correlation IDs work (``OTEL_SDK_DISABLED``, ``active="never"``).
    recording: bool = True
    patches: list[Patch] = field(default_factory=list)
    hooks: ImportHooks = field(default_factory=ImportHooks)
    skipped: dict[str, str] = field(default_factory=dict)
    on_shutdown: list[Callable[[], Any]] = field(default_factory=list)

    #: Telemetry off and on; ``None`` where nothing is sent anyway.
    switch: Switch | None = None
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.recorder)

    def keep_measurements(self) -> None:
        """In a worker, which adds up what many jobs measured: a kill takes none of it along."""
        self.journal.keep()
        if self.journal.kept:
            self.metrics.keep(self.journal)
            if self.meter_provider is not None:
                self.meter_provider.consumer.keep(self.journal)

    def collect(self) -> None:
        """Append the current state of every instrument as frames."""
        with self.journal.settling() as settled:
            self._collect(settled=settled)

    def collect_at_hand(self) -> None:
        """The same when it must not wait: users' callbacks are not asked, and what a journal keeps may stay there."""
        with self.journal.settling(_HASTE_SECONDS) as settled:
            self._collect(settled=settled, ask=False)

    def _collect(self, *, settled: bool, ask: bool = True) -> None:
        if not settled:
            return
        self.metrics.gather()
        if self.meter_provider is not None:
            self.meter_provider.gather(ask=ask)
            self.meter_provider.send()
        self.metrics.send()

    def replay(self, payload: bytes) -> None:
        """Take note in this process of what a work-horse measured or learned."""
        source, *told = json.loads(payload)
        if source == "line":
            self.bridge.learn(Line(*told))
            return
        together = source in self.metrics.groups
        kind = told[0] if source == "own" else told[2]
        with self.journal.taking(payload) if together or kind in ADDED_UP else nullcontext():
            if source == "own":
                self.metrics.replay(*told)
            elif together:
                self.metrics.replay_together(source, *told)
            elif self.meter_provider is not None:
                self.meter_provider.replay(*told)

    @property
    def redactor(self) -> Redactor:
        return self.encoder.redactor

    def tracer(self, scope: str) -> Tracer | ForeignTracer:
        """A tracer with ``begin`` and ``leaf``, over whichever provider is in force."""
        from chegou_otel.signals.foreign import ForeignTracer
        from chegou_otel.signals.tracing import Tracer

        tracer = self.tracer_provider.get_tracer(scope, self.version)
        return tracer if isinstance(tracer, Tracer) else ForeignTracer(tracer, self.encoder)

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace ``owner.name`` by ``make(original)``. Static and class methods stay what they are.

        Raises:
            AttributeError: there is no such attribute (another version of the library).
        """
        raw = vars(owner).get(name, _MISSING)
        if isinstance(raw, staticmethod | classmethod):
            replacement: Any = type(raw)(make(raw.__func__))
        elif raw is _MISSING and isinstance(owner, type) and inspect.isfunction(getattr(owner, name)):
            replacement = make(_next(owner, name))
        else:
            replacement = make(getattr(owner, name) if raw is _MISSING else raw)
        setattr(owner, name, replacement)
        self.patches.append(Patch(owner, name, raw, replacement))

    def when_imported(self, module: str, patch: Callable[[ModuleType], Any]) -> None:
        """Run ``patch(module)`` when ``module`` is imported, now or later. A failure is reported, never raised into the import.

        A failing patch leaves nothing half done: what it had replaced is put back.
        """

        def run(found: ModuleType) -> None:
            before = len(self.patches)
            if not self.armed:
                return
            try:
                patch(found)
            except Exception as error:
                _guard.pass_foreign(error)
                for done in reversed(self.patches[before:]):
                    done.undo()
                del self.patches[before:]
                self.skipped[module] = f"{type(error).__name__}: {error}"
                _guard.report(f"patching {module}", error)

        self.hooks.when_imported(module, run)

    def disarm(self) -> None:
        """Undo every patch that nobody wrapped since; the others pass calls through."""
        self.armed = False
        self.hooks.remove()
        for patch in reversed(self.patches):
            patch.undo()
        self.patches.clear()
        for undo in self.on_shutdown:
            _guard.guarded(undo)()
        self.on_shutdown.clear()
