"""The ledger as metrics: ``otel.sdk.*`` where the semantic conventions have a name, ``chegou_otel.delivery.*`` for the whole of it.

Nothing is counted here. At collection the ledger, whose counters lie in the segments, is compared with what was told before, so a
series never goes backwards. A process tells what it did itself: what an adopted segment had counted earlier was told by its writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from chegou_otel._guard import guarded
from chegou_otel.delivery import ledger, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chegou_otel.delivery.ledger import Account
    from chegou_otel.delivery.recorder import Recorder
    from chegou_otel.signals.metrics import Labels, Registry

#: What the conventions demand for reasons that they know; the others are told by their own name.
_ERROR_TYPES: Final = {"pressure": "queue_full", "full": "queue_full", "closed": "already_shutdown"}
_PROCESSOR: Final = "chegou_otel.delivery.recorder.Recorder"
_EXPORTERS: Final = {"http/protobuf": "otlp_http", "http/json": "otlp_http_json", "grpc": "otlp_grpc"}
_ITEMS: Final = {"traces": ("span", "{span}"), "logs": ("log", "{log_record}")}
_OURS: Final = "chegou_otel.delivery."


class Reading(NamedTuple):
    """One series, and what it stands at."""

    kind: str
    name: str
    unit: str
    description: str
    labels: Labels
    value: int


class Bookkeeping:
    """One per ``setup()``."""

    def __init__(self, recorder: Recorder, registry: Registry) -> None:
        self._recorder = recorder
        self._registry = registry
        self._start = registry.start
        self._told: dict[tuple[str, Labels], int] = {}

    @guarded
    def collect(self) -> None:
        """Bring the series up to the ledger. Called before the registry's own collection."""
        registry, books = self._registry, status.books(self._recorder)
        if books is None:
            return
        with registry.lock:  # and not the recorder's as well: a signal handler may hold that one
            registry._forget()
            if self._start != registry.start:  # a fork: this process has told nothing yet
                self._start = registry.start
                self._told.clear()
            for reading in self._readings(books):
                self._tell(reading)

    def _tell(self, reading: Reading) -> None:
        key = (reading.name, reading.labels)
        more = reading.value - self._told.get(key, 0)
        if more > 0 or (more and reading.kind == "updown"):
            self._told[key] = reading.value
            instrument = getattr(self._registry, reading.kind)(reading.name, reading.unit, reading.description)
            # Not ``add``: a worker notes in its journal what it adds up, and the ledger has its own way to survive.
            instrument.series(reading.labels).take(more)

    def _readings(self, books: status.Books) -> Iterator[Reading]:
        for signal, account in books.own.items():
            # What work-horses hand over to their parent is no signal of its own; what of it is lost counts all the same.
            yield from _dropped(signal, account)
            if signal != "handover":
                yield from _whole(signal, account, books)
            if signal in _ITEMS:
                yield from self._standard(signal, account, books.held(signal))
        yield Reading("counter", "otel.sdk.log.created", "{log_record}", "Log records submitted.", (), books.own["logs"].created)

    def _standard(self, signal: str, account: Account, held: int) -> Iterator[Reading]:
        item, unit = _ITEMS[signal]
        processor = _component(_PROCESSOR)
        exporter = self._exporter(signal, item)
        name = f"otel.sdk.exporter.{item}.exported"
        yield Reading("counter", name, unit, "Exports that have finished.", exporter, account.delivered)
        yield Reading("counter", name, unit, "Exports that have finished.", (*exporter, ("error.type", "rejected")), account.rejected)
        name = f"otel.sdk.processor.{item}.processed"
        # What could not be delivered at once is in the queue again, so whatever left it has been delivered or rejected.
        passed = account.delivered + account.rejected
        yield Reading("counter", name, unit, "What has left the spool.", processor, passed)
        for error, count in _errors(account).items():
            yield Reading("counter", name, unit, "What has left the spool.", (*processor, ("error.type", error)), count)
        yield Reading("updown", f"otel.sdk.processor.{item}.queue.size", unit, "What lies in the spool.", processor, held)

    def _exporter(self, signal: str, item: str) -> tuple[Any, ...]:
        way = next((way for known, way in self._recorder.endpoints.items() if ledger.NAMES[known] == signal), None)
        if way is None:
            return _component(f"otlp_http_{item}_exporter")
        parts = urlsplit(way.shown)
        kind = f"{_EXPORTERS[way.protocol]}_{item}_exporter"
        return (*_component(kind), ("server.address", parts.hostname), ("server.port", parts.port))


def _component(kind: str) -> Labels:
    return (("otel.component.type", kind), ("otel.component.name", f"{kind}/0"))


def _errors(account: Account) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason, count in account.dropped.items():
        error = _ERROR_TYPES.get(reason, reason)
        found[error] = found.get(error, 0) + count
    return found


def _whole(signal: str, account: Account, books: status.Books) -> Iterator[Reading]:
    """All of the ledger in one shape: created + adopted = delivered + rejected + dropped + held."""
    label = (("chegou_otel.signal", signal),)
    counted = {
        "created": ("Recorded here, or by a work-horse of this process.", account.created),
        "adopted": ("Taken over from a process that is gone.", books.adopted[signal].held),
        "delivered": ("Sent from here, and taken by the receiver.", account.delivered),
        "rejected": ("Refused by the receiver for good.", account.rejected),
        "ambiguous": ("Delivered, and perhaps more than once.", account.ambiguous),
    }
    for name, (description, value) in counted.items():
        yield Reading("counter", _OURS + name, "{item}", description, label, value)
    yield Reading("updown", f"{_OURS}held", "{item}", "Waiting to be sent.", label, books.held(signal))


def _dropped(signal: str, account: Account) -> Iterator[Reading]:
    for reason, count in account.dropped.items():
        labels = (("chegou_otel.signal", signal), ("reason", reason))
        yield Reading("counter", f"{_OURS}dropped", "{item}", "Lost, by reason.", labels, count)
