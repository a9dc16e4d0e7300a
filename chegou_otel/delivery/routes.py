"""How to reach an origin: TLS with which files, through which proxy. Signals whose routes are equal share a connection."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

PROXY_PORT: Final = 3128


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that somebody asked for; the variables of other programs (``HTTPS_PROXY``) ask for none."""

    host: str
    port: int
    #: Value of ``Proxy-Authorization``; not for people's eyes.
    authorization: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """``http://user:password@host:port``.

        Raises:
            ValueError: it is something else. The message does not repeat it: there may be a password in it.
        """
        try:
            parts = urlsplit(text.strip())
            host, port = parts.hostname or "", parts.port or PROXY_PORT
        except ValueError:
            host, port = "", 0
        if not host or not port or parts.scheme != "http" or parts.path.strip("/") or parts.query:
            raise ValueError("a proxy is http://host:port or http://user:password@host:port")
        if parts.username is None:
            return cls(host, port)
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(host, port, f"Basic {base64.b64encode(pair.encode()).decode()}")

    def __str__(self) -> str:
        return f"http://{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    scheme: str
    host: str
    port: int
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    proxy: Proxy | None = None

    @property
    def authority(self) -> str:
        """Host and port as they stand in a request."""
        return f"{bracketed(self.host)}:{self.port}"


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
