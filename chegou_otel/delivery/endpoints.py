"""Where each signal goes: ``OTEL_EXPORTER_OTLP_*`` read by the specification, and ``Endpoint``."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from chegou_otel.delivery.frames import Signal
from chegou_otel.delivery.routes import Proxy, Route, bracketed

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("chegou_otel")

PROTOCOL: Final = "http/protobuf"
#: Where a collector listens that nobody named, by protocol.
DEFAULTS: Final = {PROTOCOL: "http://localhost:4318", "http/json": "http://localhost:4318", "grpc": "http://localhost:4317"}
PORTS: Final = {"http": 80, "https": 443}
PREFIX: Final = "OTEL_EXPORTER_OTLP_"
PROXY: Final = "CHEGOU_OTEL_PROXY"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One signal's address, and how to talk to it. ``timeout`` is the wall clock of one whole request, in seconds."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    compression: str = "gzip"
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    protocol: str = PROTOCOL
    proxy: Proxy | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in PORTS or not parts.hostname or not 0 < (parts.port or PORTS[parts.scheme]) < 1 << 16:
            raise ValueError(
                f"an OTLP endpoint is http://host:port or https://host:port, not {self.url.rpartition('@')[2].partition('?')[0]!r}"
            )

    @property
    def route(self) -> Route:
        """Which connection leads there. Files for TLS make no difference where there is none."""
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        if parts.scheme == "http":
            return Route("http", host, port, proxy=self.proxy)
        return Route("https", host, port, self.certificate, self.client_key, self.client_certificate, self.proxy)

    @property
    def shown(self) -> str:
        """The address for people and log lines: no user, no password, no query."""
        route = self.route
        return f"{route.scheme}://{bracketed(route.host)}:{route.port}{urlsplit(self.url).path}"


def endpoints(endpoint: str | None, environ: Mapping[str, str], proxy: str | None = None) -> dict[Signal, Endpoint]:
    """The endpoint of every signal. ``endpoint`` is a base address and stands above ``OTEL_EXPORTER_OTLP_ENDPOINT``.

    Raises:
        ValueError: an argument is wrong. What is wrong in the environment is said, and the default holds.
    """
    wrong: list[str] = []
    through = _proxy(proxy, environ, wrong)
    found = {signal: _endpoint(signal, endpoint, environ, through, wrong) for signal in Signal}
    for line in dict.fromkeys(wrong):  # what stands in a variable for all signals is said once
        logger.warning("%s", line)
    return found


def _endpoint(signal: Signal, base: str | None, environ: Mapping[str, str], proxy: Proxy | None, wrong: list[str]) -> Endpoint:
    def variable(name: str) -> str | None:
        return environ.get(f"{PREFIX}{signal.name}_{name}") or environ.get(PREFIX + name) or None

    protocol = _protocol(variable("PROTOCOL"), wrong)
    default = _whole(DEFAULTS[protocol], signal, protocol)
    own = environ.get(f"{PREFIX}{signal.name}_ENDPOINT")
    url = own if own and not base else _whole(base or environ.get(f"{PREFIX}ENDPOINT") or DEFAULTS[protocol], signal, protocol)
    if protocol == "grpc":
        url = _authority(url, wrong, insecure=(variable("INSECURE") or "").strip().lower() == "true")
    headers: dict[str, str] = {}
    for name in (f"{PREFIX}HEADERS", f"{PREFIX}{signal.name}_HEADERS"):
        headers |= parse_headers(environ.get(name, ""), wrong)
    if variable("CLIENT_KEY") and not variable("CLIENT_CERTIFICATE"):
        wrong.append(f"{PREFIX}CLIENT_KEY is ignored: {PREFIX}CLIENT_CERTIFICATE, which it belongs to, is not set")
    settings = {
        "headers": headers,
        "timeout": _seconds(variable("TIMEOUT"), wrong),
        "compression": _compression(variable("COMPRESSION"), wrong),
        "certificate": variable("CERTIFICATE"),
        "client_key": variable("CLIENT_KEY"),
        "client_certificate": variable("CLIENT_CERTIFICATE"),
        "protocol": protocol,
        "proxy": proxy,
    }
    try:
        return Endpoint(url, **settings)  # type: ignore[arg-type]
    except ValueError as error:
        if base:
            raise
        wrong.append(f"{error}; using {DEFAULTS[protocol]}")
        return Endpoint(default, **settings)  # type: ignore[arg-type]


def _whole(base: str, signal: Signal, protocol: str) -> str:
    """A signal's address below a base address: gRPC has methods instead of paths."""
    return base if protocol == "grpc" else f"{base.rstrip('/')}/v1/{signal.name.lower()}"


def _authority(url: str, wrong: list[str], *, insecure: bool) -> str:
    """A gRPC endpoint may come without a scheme, and is ``https`` then unless told otherwise; a path says nothing to it."""
    if "://" not in url:
        url = f"{'http' if insecure else 'https'}://{url}"
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if path:
        path = path.partition("?")[0]
        wrong.append(f"the path /{path} of a gRPC endpoint is ignored: the protocol is grpc, and an address is {scheme}://host:port then")
    return f"{scheme}://{authority}" if slash else url


def _protocol(value: str | None, wrong: list[str]) -> str:
    protocol = (value or PROTOCOL).strip().lower()
    if protocol in DEFAULTS:
        return protocol
    wrong.append(f"{PREFIX}PROTOCOL is http/protobuf, http/json or grpc, not {value!r}; using {PROTOCOL}")
    return PROTOCOL


def _proxy(argument: str | None, environ: Mapping[str, str], wrong: list[str]) -> Proxy | None:
    text = argument or environ.get(PROXY, "").strip()
    if not text:
        return None
    try:
        return Proxy.parse(text)
    except ValueError as error:
        if argument:
            raise
        wrong.append(f"{PROXY} is ignored ({error}); telemetry is sent without a proxy")
        return None


def parse_headers(text: str, wrong: list[str] | None = None) -> dict[str, str]:
    """``key=value,key2=value2`` with percent-encoded values. What no header can hold is left out and noted, but not quoted."""
    pairs = (item.partition("=") for item in text.split(",") if "=" in item)
    found = {key.strip().lower(): unquote(value.strip()) for key, _, value in pairs if key.strip()}
    good = {key: value for key, value in found.items() if _NAME.fullmatch(key) and not any(each < " " or each == "\x7f" for each in value)}
    if wrong is not None and len(good) < len(found):
        wrong.append(f"{PREFIX}HEADERS: what cannot be the name or the value of a header is left out")
    return good


def _seconds(milliseconds: str | None, wrong: list[str]) -> float:
    try:
        seconds = float(milliseconds or "10000") / 1000
    except ValueError:
        seconds = 0.0
    if 0 < seconds < 3600:  # noqa: PLR2004
        return seconds
    wrong.append(f"{PREFIX}TIMEOUT is in milliseconds, not {milliseconds!r}; using 10000")
    return 10.0


def _compression(value: str | None, wrong: list[str]) -> str:
    if value in (None, "gzip", "none"):
        return value or "gzip"
    wrong.append(f"{PREFIX}COMPRESSION is gzip or none, not {value!r}; using gzip")
    return "gzip"
