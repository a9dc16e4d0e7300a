"""TLS contexts, and what their failures mean in words that name the setting to mend.

The ``ssl`` module comes along when the recorder is made for a TLS endpoint; see ``sockets.prepare``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

    from chegou_otel.delivery.routes import Route

_CA: Final = "OTEL_EXPORTER_OTLP_CERTIFICATE"
_CLIENT: Final = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
_KEY: Final = "OTEL_EXPORTER_OTLP_CLIENT_KEY"

_UNKNOWN_CA: Final = f"name the file of its CA with {_CA}"
#: By OpenSSL's number of what is wrong with the receiver's certificate.
_HINTS: Final = {
    9: "it is not valid yet: is this machine's clock right?",
    10: "it has expired: the receiver needs a new one",
    18: _UNKNOWN_CA,
    19: _UNKNOWN_CA,
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    62: "use a name in the endpoint that the certificate holds",
    64: "use an address in the endpoint that the certificate holds",
}
_OURS: Final = f"the receiver does not accept our certificate: {_CLIENT} and {_KEY} name the files of one that it knows"
#: What a receiver says that wants another client certificate than ours, or any at all. With TLS 1.3 it says so after the handshake.
ALERTS: Final = (
    "CERTIFICATE_REQUIRED",
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "UNSUPPORTED_CERTIFICATE",
    "ALERT_ACCESS_DENIED",
    "ALERT_HANDSHAKE_FAILURE",
)


class Contexts:
    """The context of one route; made again when one of its files has changed, so rotated certificates count from the next connection on."""

    def __init__(self, route: Route, protocols: tuple[str, ...]) -> None:
        self._route = route
        self._protocols = protocols
        self._made: ssl.SSLContext | None = None
        self._stamp: list[tuple[int, int, int]] = []

    def get(self) -> ssl.SSLContext:
        """Raises:
        OSError: a file cannot be read, or holds something else; the message says which.
        """
        stamp = [_stamp(path, setting) for setting, path in self._files()]
        if self._made is None or stamp != self._stamp:
            self._made = self._make()
            self._stamp = stamp
        return self._made

    def _files(self) -> list[tuple[str, str]]:
        route = self._route
        named = ((_CA, route.certificate), (_CLIENT, route.client_certificate), (_KEY, route.client_certificate and route.client_key))
        return [(setting, path) for setting, path in named if path]

    def _make(self) -> ssl.SSLContext:
        import ssl

        route = self._route
        try:
            context = ssl.create_default_context(cafile=route.certificate)
        except ssl.SSLError as error:
            raise OSError(f"{_CA} names {route.certificate}, which holds no certificate in PEM") from error
        context.set_alpn_protocols(list(self._protocols))
        if route.client_certificate:
            try:
                # Without a function of ours, OpenSSL asks for the password on the terminal.
                context.load_cert_chain(route.client_certificate, route.client_key, password=_no_password)
            except ssl.SSLError as error:
                raise OSError(f"{_CLIENT} and {_KEY} are no certificate in PEM with its key, unencrypted ({error.reason})") from error
        return context


def _no_password() -> bytes:
    return b"-"


def _stamp(path: str, setting: str) -> tuple[int, int, int]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (what a path object needs would be imported here)
            found = os.fstat(file.fileno())
    except OSError as error:
        raise OSError(f"{setting} names {path}, which cannot be read ({error.strerror})") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def explain(error: BaseException) -> str:
    """What went wrong, and what mends it."""
    code = getattr(error, "verify_code", None)
    if code is not None:
        told = f"certificate verify failed: {getattr(error, 'verify_message', '')}".rstrip(": ")
        return f"{told} ({_HINTS[code]})" if code in _HINTS else told
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        if concerns_our_certificate(error):
            return f"{_OURS} ({reason})"
        if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return f"the receiver speaks no TLS here: the endpoint begins with http:// then ({reason})"
    return str(error) or type(error).__name__


def concerns_our_certificate(error: BaseException) -> bool:
    """Whether the receiver refused the connection because of the client certificate: it reads no request then."""
    reason = getattr(error, "reason", None)
    return isinstance(reason, str) and "ALERT" in reason and reason.endswith(ALERTS)
