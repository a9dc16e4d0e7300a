"""A socket between a service and its receiver that breaks on demand. Needs the standard library alone, so that benchmarks can use it.

It passes whole requests on, one connection to the receiver for each that it takes. ``begin(fault)`` says what becomes of them from then
on, ``heal()`` lets everything through again; both cut what hangs.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress

RST = b"\1\0\0\0\0\0\0\0"
HTML = b"<html><body>Please log in</body></html>"
DRIP_SECONDS = 0.05


def answer(status, body=b"", content_type="application/x-protobuf", **headers):
    """An answer that the request never caused: it is not passed on."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", f"content-type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    text = "\r\n".join([*lines, "", ""]).encode() + body

    def talk(wire, request):
        wire.read_body(request)
        wire.say(text)

    return talk


def black_hole(wire, request):
    """Takes the connection, and neither reads nor answers."""
    wire.hang()


def reset_mid_body(wire, request):
    wire.read_body(request, share=0.5)
    wire.reset()


def answer_lost(wire, request):
    """The receiver has it, and the way back is gone."""
    wire.pass_on(request)
    wire.reset()


def drip(wire, request):
    """The receiver has it; its answer comes a byte at a time."""
    for byte in wire.pass_on(request):
        wire.say(bytes([byte]))
        if wire.changed.wait(DRIP_SECONDS):
            wire.reset()


def too_large(limit):
    """413 for bodies above ``limit``, as soon as their length is known: the rest of the body meets a closed door."""

    def talk(wire, request):
        if request.length <= limit:
            wire.say(wire.pass_on(request))
            return
        wire.say(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        raise ConnectionAbortedError

    return talk


def slow(seconds):
    """Works, and takes its time."""

    def talk(wire, request):
        found = wire.pass_on(request)
        wire.changed.wait(seconds)
        wire.say(found)

    return talk


#: What a socket does to a request. Faults that are no socket's business (names, certificates, disks, clocks) are the tests' own.
TALKS = {
    "refuse": None,
    "black hole": black_hole,
    "reset mid-body": reset_mid_body,
    "answer lost": answer_lost,
    "slow drip": drip,
    "200 with HTML": answer("200 OK", HTML, "text/html"),
    "garbage protobuf": answer("200 OK", b"\xff" * 64),
    "302": answer("302 Found", HTML, "text/html", location="http://127.0.0.1:9/"),
    "400": answer("400 Bad Request", b"\x12\x07refused"),
    "413": answer("413 Content Too Large"),
    "413 above 2 kB": too_large(2048),
    "429 with Retry-After": answer("429 Too Many Requests", retry_after="1"),
    "503 with Retry-After": answer("503 Service Unavailable", retry_after="1"),
    "503 for an hour": answer("503 Service Unavailable", retry_after="3600"),
}


class _Request:
    def __init__(self, head):
        self.head = head
        fields = head.lower().split(b"content-length:", 1)
        self.length = int(fields[1].split(b"\r\n", 1)[0]) if len(fields) > 1 else 0
        self.body = b""


class _Wire:
    """One connection of the service, and the receiver's end of it once something was passed on."""

    def __init__(self, sock, target, changed):
        self.sock = sock
        self.stream = sock.makefile("rb")
        self.changed = changed
        self._target = target
        self._behind = None

    def read_request(self):
        head = b""
        while line := self.stream.readline(65536):
            head += line
            if line == b"\r\n":
                return _Request(head)
        return None

    def read_body(self, request, share=1.0):
        request.body = self.stream.read(int(request.length * share))

    def pass_on(self, request):
        """The receiver's answer, as it came."""
        self.read_body(request)
        if self._behind is None:
            self._behind = socket.create_connection(self._target, 20)
            self._answers = self._behind.makefile("rb")
        self._behind.sendall(request.head + request.body)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._answers.readline()
            if not line:
                raise ConnectionAbortedError
            head += line
        return head + self._answers.read(_Request(head).length)

    def say(self, data):
        self.sock.sendall(data)

    def hang(self):
        self.changed.wait(600)
        self.reset()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        raise ConnectionAbortedError

    def close(self):
        for each in (self.stream, self.sock, self._behind):
            if each is not None:
                with suppress(OSError):
                    each.close()

    def cut(self):
        """From another thread: whoever reads or writes here gets an error."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


def _bound(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


class FaultySocket:
    """Passes on to ``target``. With TLS contexts, ``tls`` is what it shows who it is by; a fault may change it."""

    def __init__(self, target, tls=None):
        self.target = ("127.0.0.1", target)
        self.tls = tls
        self.requests = 0
        self._talk = None
        self._changed = threading.Event()
        self._wires = set()
        self._lock = threading.Lock()
        self._closed = False
        self._listening = _bound(0)
        self.port = self._listening.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._listen()

    def begin(self, name):
        """From now on, this fault; ``None`` heals."""
        self._change(TALKS[name] if name else None)
        if name == "refuse":
            self._leave()
            self._accepting.join()
            # Bound, and nobody listens: nobody else can take the port meanwhile.
            self._listening = _bound(self.port)
            self.cut()

    def heal(self):
        self._change(None)
        if not self._accepting.is_alive():
            self._listen()

    def cut(self):
        """End all connections: what comes next has to connect again."""
        with self._lock:
            for wire in self._wires:
                wire.cut()

    def close(self):
        self._closed = True
        self._change(None)
        self._leave()
        self.cut()

    def _leave(self):
        # Closing alone would leave the thread in accept().
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _change(self, talk):
        self._talk = talk
        before, self._changed = self._changed, threading.Event()
        before.set()

    def _listen(self):
        self._listening.listen(128)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        wire = None
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = _Wire(sock, self.target, self._changed)
            with self._lock:
                self._wires.add(wire)
            self._converse(wire)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._wires.discard(wire)
            (wire or sock).close()

    def _converse(self, wire):
        while not self._closed:
            if self._talk is black_hole:
                wire.changed = self._changed
                wire.hang()
            request = wire.read_request()
            if request is None:
                return
            self.requests += 1
            wire.changed, talk = self._changed, self._talk
            if talk is None:
                wire.say(wire.pass_on(request))
            else:
                talk(wire, request)


def memory(pid):
    """Resident memory of a process in KiB, by what it belongs to: ``RssAnon``, ``RssFile``, ``RssShmem``, and ``VmRSS`` for the sum."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = dict(line.split(":", 1) for line in file if line.startswith(("Rss", "VmRSS")))
    return {name: int(text.split()[0]) for name, text in found.items()}


@contextmanager
def peak_of(pid):
    """The most of each kind that the process has at any time within the block; known when that ends."""
    peak, over = memory(pid), threading.Event()

    def watch():
        while not over.wait(0.02):
            peak.update({name: max(peak[name], size) for name, size in memory(pid).items()})

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
