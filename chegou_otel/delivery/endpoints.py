"""Where each signal goes: ``OTEL_EXPORTER_OTLP_*`` read by the specification, and ``Endpoint``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from chegou_otel.delivery.frames import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("chegou_otel")

DEFAULT: Final = "http://localhost:4318"
PORTS: Final = {"http": 80, "https": 443}
PREFIX: Final = "OTEL_EXPORTER_OTLP_"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One signal's address, and how to talk to it. ``timeout`` is the wall clock of one whole request, in seconds."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0
    compression: str = "gzip"
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in PORTS or not parts.hostname or not 0 < (parts.port or PORTS[parts.scheme]) < 1 << 16:
            raise ValueError(f"an OTLP endpoint is http://host:port or https://host:port, not {self.url!r}")

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        parts = urlsplit(self.url)
        return parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme]

    @property
    def shown(self) -> str:
        """The address for people and log lines: no user, no password, no query."""
        scheme, host, port = self.origin
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{urlsplit(self.url).path}"


def endpoints(endpoint: str | None, environ: Mapping[str, str]) -> dict[Signal, Endpoint]:
    """The endpoint of every signal. ``endpoint`` is a base address and stands above ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
    return {signal: _endpoint(signal, endpoint, environ) for signal in Signal}


def _endpoint(signal: Signal, base: str | None, environ: Mapping[str, str]) -> Endpoint:
    def variable(name: str) -> str | None:
        return environ.get(f"{PREFIX}{signal.name}_{name}") or environ.get(PREFIX + name) or None

    own = environ.get(f"{PREFIX}{signal.name}_ENDPOINT")
    path = f"/v1/{signal.name.lower()}"
    url = own if own and not base else (base or environ.get(f"{PREFIX}ENDPOINT") or DEFAULT).rstrip("/") + path
    headers = parse_headers(environ.get(f"{PREFIX}HEADERS", "")) | parse_headers(environ.get(f"{PREFIX}{signal.name}_HEADERS", ""))
    settings = {
        "headers": headers,
        "timeout": _seconds(variable("TIMEOUT")),
        "compression": _compression(variable("COMPRESSION")),
        "certificate": variable("CERTIFICATE"),
        "client_key": variable("CLIENT_KEY"),
        "client_certificate": variable("CLIENT_CERTIFICATE"),
    }
    try:
        return Endpoint(url, **settings)  # type: ignore[arg-type]
    except ValueError as error:
        if base:
            raise
        logger.warning("%s; using %s", error, DEFAULT)
        return Endpoint(DEFAULT + path, **settings)  # type: ignore[arg-type]


def parse_headers(text: str) -> dict[str, str]:
    """``key=value,key2=value2`` with percent-encoded values."""
    pairs = (item.partition("=") for item in text.split(",") if "=" in item)
    found = {key.strip().lower(): unquote(value.strip()) for key, _, value in pairs if key.strip()}
    return {key: value for key, value in found.items() if "\r" not in key + value and "\n" not in key + value}


def _seconds(milliseconds: str | None) -> float:
    try:
        seconds = float(milliseconds or "10000") / 1000
    except ValueError:
        seconds = 0.0
    if 0 < seconds < 3600:  # noqa: PLR2004
        return seconds
    logger.warning("%sTIMEOUT is in milliseconds, not %r; using 10000", PREFIX, milliseconds)
    return 10.0


def _compression(value: str | None) -> str:
    if value in (None, "gzip", "none"):
        return value or "gzip"
    logger.warning("%sCOMPRESSION is gzip or none, not %r; using gzip", PREFIX, value)
    return "gzip"
