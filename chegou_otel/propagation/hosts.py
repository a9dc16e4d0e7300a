"""Names and addresses: how they are compared, and what may stand in ``propagate_to`` and ``trust_from``."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: In ``trust_from``: whoever comes in by a Unix socket, where there is no address.
UNIX: Final = "unix"
_MAX_NAME: Final = 253
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_WITH_PORT: Final = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>\d{1,5})").fullmatch


def normal(host: str) -> str | None:
    """A host as it is compared: lower case, ASCII, without brackets and trailing dot. ``None``: not to be compared with anything."""
    text = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    text = text.lower().removesuffix(".")
    if not text.isascii():
        try:
            encoded = text.encode("idna")
            # Libraries disagree about names that the encoding changes (ß, full-width letters): such a name might mean another host.
            if encoded.decode("idna") != text:
                return None
        except UnicodeError:
            return None
        text = encoded.decode("ascii")
    address = address_of(text)
    if address is not None:
        return str(address)
    return text if len(text) <= _MAX_NAME and _NAME(text) else None


def address_of(text: str) -> Address | None:
    """The address that ``text`` spells, IPv4 inside IPv6 taken out; ``None`` for a name, and for short forms such as ``127.1``."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return found if mapped is None else mapped


def is_loopback(host: str) -> bool:
    """Whether a normal host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = address_of(host)
    return address is not None and address.is_loopback


def is_within(peer: str, networks: Collection[Network | str]) -> bool:
    """Whether ``peer`` (an address; empty or a path on a Unix socket) is in one of ``networks``."""
    if not peer or peer.startswith(("/", "unix:")):
        return UNIX in networks
    address = address_of(peer)
    return address is not None and any(not isinstance(one, str) and address in one for one in networks)


class HostPattern(NamedTuple):
    """An entry of ``propagate_to``: how to compare, with what, and at which port (``None``: any)."""

    kind: str
    value: Any
    port: int | None = None

    def fits(self, host: str, port: int | None) -> bool:
        """Whether a normal host is meant. An entry with a port never fits a host whose port is not known."""
        if self.port is not None and self.port != port:
            return False
        if self.kind == "network":
            address = address_of(host)
            return address is not None and address in self.value
        if self.kind == "below":
            return host.endswith("." + self.value)
        return self.kind == "all" or host == self.value or (self.kind == "domain" and host.endswith("." + self.value))


def host_pattern(text: str) -> HostPattern:
    """An entry of ``propagate_to``.

    Raises:
        ValueError: it names no host; the message says what would.
    """
    entry = text.strip()
    if entry == "*":
        return HostPattern("all", None)
    if "://" in entry:
        raise ValueError(f"{text!r} is a URL; propagate_to takes hosts, such as 'api.example.com' or '*.example.com'")
    if "/" in entry:
        return HostPattern("network", ip_network(entry, strict=False))
    found = _WITH_PORT(entry)
    host, port = (found["host"], int(found["port"])) if found else (entry, None)
    kind, bare = _kind(host)
    name = normal(bare)
    if name is None:
        raise ValueError(f"{text!r} is no host; propagate_to takes hosts, such as 'api.example.com', '*.example.com' or '.internal'")
    return HostPattern(kind, name, port)


def _kind(host: str) -> tuple[str, str]:
    if host.startswith("*."):
        return "below", host[2:]
    if host.startswith("."):
        return "domain", host[1:]
    return "exact", host


def network(text: str) -> Network | str:
    """An entry of ``trust_from``.

    Raises:
        ValueError: it is neither a network nor an address nor ``unix``.
    """
    entry = text.strip()
    if entry == UNIX:
        return UNIX
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network; trust_from takes networks, such as '10.0.0.0/8', and 'unix'") from None
