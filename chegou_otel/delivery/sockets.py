"""Sockets whose deadlines are wall-clock: name resolution, connect, TLS, every send and every receive count together."""

from __future__ import annotations

import errno
import http.client
import io
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from chegou_otel import _forks
from chegou_otel.delivery.tls import Contexts, explain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chegou_otel.delivery.routes import Proxy, Route

#: ``getaddrinfo`` knows no deadline: after so long the thread that waits in it is left alone.
RESOLVE_SECONDS: Final = 1.0
TUNNEL_ANSWER_MAX: Final = 8192
RECEIVE_BYTES: Final = 64 * 1024
#: ``ssl.SSL_ERROR_WANT_READ``, which stands where others have an errno.
_TLS_WANTS_MORE: Final = 2
#: What TLS makes of a connection that the other side has closed. (By name, because ``ssl`` is not there without TLS.)
_TLS_CUT: Final = "SSLEOFError"


#: Of all connections of this process, by their descriptors.
connected: dict[int, socket.socket] = {}
#: They are a parent's, and their descriptors were closed here; to take them apart would touch many pages.
closed = False


class Unsent(OSError):  # noqa: N818 (a verdict, not an error)
    """The request cannot have reached anybody."""


class LookUpTimeout(TimeoutError):  # noqa: N818 (it ends as its base does)
    """A name server does not answer."""


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
            try:
                view = view[self.inner.send(view) :]
            except OSError as error:
                if type(error).__name__ == _TLS_CUT:
                    raise BrokenPipeError(*error.args) from error
                raise

    def makefile(self, *_mode: Any, **_options: Any) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self))

    def receive(self) -> bytes:
        """What comes next; empty when the other side has closed."""
        self.inner.settimeout(remaining(self.deadline))
        return self.inner.recv(RECEIVE_BYTES)

    def receive_waiting(self) -> bytes | None:
        """What is there already, or ``None``."""
        self.inner.settimeout(0)
        try:
            return self.inner.recv(RECEIVE_BYTES)
        except OSError as error:
            if error.errno in (errno.EAGAIN, _TLS_WANTS_MORE):
                return None
            raise

    def close(self) -> None:
        connected.pop(self.inner.fileno(), None)
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
    """One keep-alive connection. No redirects, no environment; a proxy when the route has one."""

    def __init__(self, route: Route) -> None:
        super().__init__(route.host, route.port)
        self._route = route
        self._contexts = Contexts(route, ("http/1.1",))
        self.deadline = 0.0

    def connect(self) -> None:
        """Raises:
        Unsent: whatever went wrong.
        """
        self.sock: Any = dial(self._route, self._contexts, self.deadline)

    def tend(self) -> None:
        """Between requests: let go of what the other side has closed."""
        if self.sock is not None and self.sock.stale():
            self.close()

    def begin(self, deadline: float) -> None:
        """Be connected, with everything up to the answer's last byte bound by ``deadline``."""
        self.deadline = deadline
        self.tend()
        if self.sock is None:
            self.connect()
        self.sock.deadline = deadline


def dial(route: Route, contexts: Contexts, deadline: float, *, tunnel: bool = False) -> DeadlineSocket:
    """A socket on which the receiver can be spoken to. Through a proxy, plain HTTP needs no ``tunnel``; everything else has one.

    Raises:
        Unsent: whatever went wrong.
    """
    proxy = route.proxy
    inner: socket.socket | None = None
    stage = f"the proxy {proxy}" if proxy else "the connection"
    try:
        inner = _connect(proxy.host if proxy else route.host, proxy.port if proxy else route.port, deadline)
        if proxy and (tunnel or route.scheme == "https"):
            _tunnel(inner, route, proxy, deadline)
        if route.scheme == "https":
            stage = "the TLS handshake"
            context = contexts.get()
            inner.settimeout(remaining(deadline))
            inner = context.wrap_socket(inner, server_hostname=route.host)
    except (OSError, ValueError) as error:
        if inner is not None:
            inner.close()
        told = "took too long" if isinstance(error, TimeoutError) and not isinstance(error, LookUpTimeout) else explain(error)
        raise Unsent(f"{stage}: {told}" if proxy or told == "took too long" else told) from error
    except BaseException:
        if inner is not None:
            inner.close()
        raise
    connected[inner.fileno()] = inner
    return DeadlineSocket(inner, deadline)


def _tunnel(sock: socket.socket, route: Route, proxy: Proxy, deadline: float) -> None:
    """Let the proxy connect us with the receiver, whose first byte must not be taken for the proxy's."""
    asked = f"CONNECT {route.authority} HTTP/1.1\r\nHost: {route.authority}\r\n"
    if proxy.authorization:
        asked += f"Proxy-Authorization: {proxy.authorization}\r\n"
    DeadlineSocket(sock, deadline).sendall(f"{asked}\r\n".encode())
    answer = bytearray()
    while not answer.endswith(b"\r\n\r\n"):
        sock.settimeout(remaining(deadline))
        byte = sock.recv(1)
        if not byte or len(answer) >= TUNNEL_ANSWER_MAX:
            raise OSError("it gives no answer that is HTTP")
        answer += byte
    first = answer.split(b"\r\n", 1)[0].decode("latin-1")
    status = first.split()[1:2]
    if not first.startswith("HTTP/1.") or not status or not status[0].startswith("2"):
        raise OSError(f"it does not connect us: {first[:100]}")


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
look_ups: dict[tuple[bytes, int], tuple[threading.Event, list[Any]]] = {}


def _resolve(host: str, port: int, deadline: float) -> list[Any]:
    # As bytes: a string would go through a codec that is imported on first use.
    name = host.encode("ascii" if host.isascii() else "idna")
    try:
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        pass
    # A look-up that got stuck is not started twice: whoever asks next waits for the same one.
    key = (name, port)
    if key not in look_ups:
        look_ups[key] = (threading.Event(), [])
        thread = threading.Thread(target=_look_up, args=(key, *look_ups[key]), name="chegou-otel-dns", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # a limit of processes, or the interpreter's end
            del look_ups[key]
            raise OSError(str(error)) from error
    done, answer = look_ups[key]
    if not done.wait(min(RESOLVE_SECONDS, remaining(deadline))):
        raise LookUpTimeout(f"looking up {host} takes too long")
    look_ups.pop(key, None)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return list(answer[0])


def _look_up(key: tuple[bytes, int], done: threading.Event, answer: list[Any]) -> None:
    try:
        with _forks.calm():
            answer.append(socket.getaddrinfo(*key, type=socket.SOCK_STREAM))
    except Exception as error:
        answer.append(error)
    done.set()


def prepare(routes: Iterable[Route]) -> None:
    """Import now what connecting by these routes will need."""
    for route in routes:
        if route.scheme == "https":
            import encodings.idna  # what every TLS name is encoded by
            import ssl  # noqa: F401
        if not (route.host + (route.proxy.host if route.proxy else "")).isascii():
            import encodings.idna  # noqa: F401


def forget() -> None:
    """In a forked child: connections are the parent's, and the threads that look names up did not come along."""
    global closed
    for inner in connected.values():
        try:  # no `suppress`: its methods lie on pages of their own, each of which is copied
            fd = inner.detach()
            if not closed:
                os.close(fd)
        except OSError:
            continue
    connected.clear()
    look_ups.clear()
    closed = False
