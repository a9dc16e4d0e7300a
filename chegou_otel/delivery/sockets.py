"""Sockets whose deadlines are wall-clock: name resolution, connect, TLS, every send and every receive count together."""

from __future__ import annotations

import http.client
import io
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from chegou_otel.delivery.endpoints import Endpoint

#: ``getaddrinfo`` knows no deadline: after so long the thread that waits in it is left alone.
RESOLVE_SECONDS: Final = 1.0


#: Of all connections of this process.
_connected: set[socket.socket] = set()


class Unsent(OSError):  # noqa: N818 (a verdict, not an error)
    """The request cannot have reached anybody."""


def remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class _Incoming(io.RawIOBase):
    """What ``http.client`` reads from. A peer that sends a byte now and then gains no time by it."""

    def __init__(self, sock: DeadlineSocket) -> None:
        self._socket = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        inner = self._socket.inner
        inner.settimeout(remaining(self._socket.deadline))
        return inner.recv_into(buffer)


class DeadlineSocket:
    """The part of a socket that ``http.client`` uses."""

    def __init__(self, inner: socket.socket, deadline: float) -> None:
        self.inner = inner
        self.deadline = deadline

    def sendall(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            self.inner.settimeout(remaining(self.deadline))
            view = view[self.inner.send(view) :]

    def makefile(self, *_mode: Any, **_options: Any) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self))

    def close(self) -> None:
        _connected.discard(self.inner)
        self.inner.close()

    def stale(self) -> bool:
        """Whether the other side has closed, or says something unasked: either way, no socket for the next request."""
        try:
            poll = select.poll()
            poll.register(self.inner, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True


class Connection(http.client.HTTPConnection):
    """One keep-alive connection. No proxies, no redirects, no environment."""

    def __init__(self, host: str, port: int, context: Callable[[], ssl.SSLContext] | None) -> None:
        super().__init__(host, port)
        #: Makes the TLS context when it is needed first: a certificate that cannot be read is a failed delivery.
        self._make_context = context
        self._context: ssl.SSLContext | None = None
        self.deadline = 0.0

    def connect(self) -> None:
        """Raises:
        Unsent: whatever went wrong.
        """
        try:
            inner = _connect(self.host, self.port, self.deadline)
            if self._make_context is not None:
                self._context = self._context or self._make_context()
                inner.settimeout(remaining(self.deadline))
                inner = self._context.wrap_socket(inner, server_hostname=self.host)
        except (OSError, ValueError, UnicodeError) as error:
            raise Unsent(str(error) or type(error).__name__) from error
        _connected.add(inner)
        self.sock: Any = DeadlineSocket(inner, self.deadline)

    def begin(self, deadline: float) -> None:
        """Be connected, with everything up to the answer's last byte bound by ``deadline``."""
        self.deadline = deadline
        if self.sock is not None and self.sock.stale():
            self.close()
        if self.sock is None:
            self.connect()
        self.sock.deadline = deadline


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    last: OSError | None = None
    for family, kind, protocol, _, address in _resolve(host, port, deadline):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(remaining(deadline))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last or OSError(f"{host} has no address")


#: Hosts that a thread is looking up, or has: host → (done, answer or error).
_lookups: dict[tuple[bytes, int], tuple[threading.Event, list[Any]]] = {}


def _resolve(host: str, port: int, deadline: float) -> list[Any]:
    # As bytes: a string would go through a codec that is imported on first use.
    name = host.encode("ascii" if host.isascii() else "idna")
    try:
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        pass
    # A look-up that got stuck is not started twice: whoever asks next waits for the same one.
    key = (name, port)
    if key not in _lookups:
        _lookups[key] = (threading.Event(), [])
        threading.Thread(target=_look_up, args=(key, *_lookups[key]), name="chegou-otel-dns", daemon=True).start()
    done, answer = _lookups[key]
    if not done.wait(min(RESOLVE_SECONDS, remaining(deadline))):
        raise TimeoutError(f"looking up {host} takes too long")
    _lookups.pop(key, None)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return list(answer[0])


def _look_up(key: tuple[bytes, int], done: threading.Event, answer: list[Any]) -> None:
    try:
        answer.append(socket.getaddrinfo(*key, type=socket.SOCK_STREAM))
    except Exception as error:
        answer.append(error)
    done.set()


def prepare(ways: Iterable[Endpoint]) -> None:
    """Import now what connecting to these endpoints will need."""
    for way in ways:
        scheme, host, _ = way.origin
        if scheme == "https":
            import ssl  # noqa: F401
        if not host.isascii():
            import encodings.idna  # noqa: F401


def forget() -> None:
    """In a forked child: connections are the parent's, and the threads that look names up did not come along."""
    for inner in _connected:
        try:  # no `suppress`: its methods lie on pages of their own, each of which is copied
            os.close(inner.detach())
        except OSError:
            continue
    _connected.clear()
    _lookups.clear()
