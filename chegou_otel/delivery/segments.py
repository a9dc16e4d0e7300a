"""A segment: one bounded file, mapped by its single writer and by whoever ships it.

Ownership is told by POSIX record locks: byte 0 belongs to the writer, byte 1 to the shipper. They are not inherited by a
fork and end with the process, however it ends. Closing *any* descriptor of the file would drop them, so a process opens
a segment once and keeps that descriptor; ``in_use`` tells which files those are.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import sys
import threading
import time
import zlib
from typing import Any, Final

from chegou_otel.delivery import ledger, process
from chegou_otel.delivery.folder import allocate, new_name
from chegou_otel.delivery.frames import (
    FRAME_HEADER,
    HEADER_BYTES,
    MAGIC,
    NO_SCOPE,
    ROWS,
    W_CREATED,
    W_CURSOR,
    W_GENERATION,
    W_HELD,
    W_MAGIC,
    W_PID,
    W_POSITION,
    W_SENT,
    W_SERVICE,
    W_SIZE,
    W_STARTED,
    W_TOUCHED,
    Kind,
    seed,
)
from chegou_otel.delivery.readers import Reader

WRITER: Final = 0
SHIPPER: Final = 1
SUFFIX: Final = ".seg"
MIN_BYTES: Final = 16 * 1024
MAX_BYTES: Final = 1 << 30

#: Paths of the segments that this process has open. Emptied in a forked child, which holds none of the locks.
in_use: set[str] = set()


class NotOurs(Exception):  # noqa: N818 (an answer, not an error)
    """The file is no segment, of another service, or somebody has it."""


class Segment:
    __slots__ = (
        "created", "fd", "floor", "foreign", "handling", "holds", "identity", "limit", "longs", "memory", "path", "position", "readers",
        "replay", "scopes", "sealed", "seed", "settled", "size", "spoken", "words", "writer_elsewhere",
    )  # fmt: skip

    def __init__(self, fd: int, path: str | None, size: int) -> None:
        self.fd = fd
        self.path = path
        self.size = size
        # Before 3.13 mmap duplicates the descriptor; that copy lives and dies with the mapping.
        options: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        self.memory = mmap.mmap(fd, size, **options)
        self.words = memoryview(self.memory).cast("I")
        self.longs = memoryview(self.memory).cast("Q")
        self.created = self.longs[W_CREATED : W_CREATED + 16]
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)
        self.seed = seed(self.longs[W_GENERATION])
        #: Where the next frame goes, and up to where it may go without a second thought (see Recorder).
        self.position = HEADER_BYTES
        self.limit = 0
        #: Frames below this priority are not taken.
        self.floor = 0
        #: The last RESOURCE frame, as far as we know of it, and the numbers of the scopes that were written since.
        self.spoken: bytes | None = None
        self.scopes = {NO_SCOPE}
        self.readers = [Reader(self, row) for row in range(ROWS)]
        #: Held while handlers run over this segment.
        self.handling = threading.Lock()
        #: Frames that an adopter would need again, by where they lie, and from where on we ourselves have to read again.
        self.holds: dict[int, Any] = {}
        self.replay = 0
        #: Another process writes here, so frames are checked, and their end is found by reading.
        self.writer_elsewhere = False
        #: Found in the folder: of a dead process, or of one that has no courier.
        self.foreign = False
        #: Full: it is read once more, and its pages need not stay mapped.
        self.sealed = False
        #: Its writer is gone; ``position`` is its end.
        self.settled = False
        if path is not None:
            in_use.add(path)

    # -- made, opened, locked

    @classmethod
    def create(cls, folder: str | None, size: int, service: int = 0) -> Segment:
        """A new, preallocated segment in ``folder``, or in memory. Visible to others only when the caller's locks are on.

        Raises:
            OSError: the disk is full, the folder is gone, no descriptors are left.
        """
        name = new_name()
        if folder is None:
            fd = os.memfd_create("chegou-otel", os.MFD_CLOEXEC)
            temporary = path = None
        else:
            path = f"{folder}/{name}{SUFFIX}"
            temporary = f"{folder}/.{name}.new"
            fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            allocate(fd, size)
            segment = cls(fd, path, size)
            segment.longs[W_SIZE] = size
            segment.longs[W_SERVICE] = service
            segment.longs[W_MAGIC] = MAGIC
            segment.touch()
            segment.rewind()
            if not (segment.lock(WRITER) and segment.lock(SHIPPER)):
                raise OSError(errno.ENOLCK, "record locks do not work here")  # noqa: TRY301
            if temporary is not None and path is not None:
                os.rename(temporary, path)  # noqa: PTH104
        except BaseException:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108
                in_use.discard(path or "")
            os.close(fd)
            raise
        return segment

    @classmethod
    def open(cls, path: str, service: int = 0) -> Segment:
        """A segment that somebody else made; nothing is locked yet.

        Raises:
            NotOurs: it cannot be used.
        """
        if path in in_use:
            raise NotOurs(path)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (0 if path.startswith("/proc/") else os.O_NOFOLLOW))
        except OSError as error:
            raise NotOurs(path) from error
        try:
            status = os.fstat(fd)
            fits = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and MIN_BYTES <= status.st_size <= MAX_BYTES
            segment = cls(fd, path, status.st_size) if fits else None
        except (OSError, ValueError):
            segment = None
        if segment is None:
            os.close(fd)
            raise NotOurs(path)
        longs = segment.longs
        if longs[W_MAGIC] != MAGIC or longs[W_SIZE] != segment.size or longs[W_SERVICE] != service:
            segment.close()
            raise NotOurs(path)
        segment.writer_elsewhere = True
        segment.position = segment.longs[W_POSITION]
        return segment

    @property
    def address(self) -> str:
        """A path under which a child that does not inherit our descriptors finds this segment; see ``Recorder.become``."""
        return self.path or f"/proc/{os.getpid()}/fd/{self.fd}"

    def lock(self, byte: int) -> bool:
        """Take a byte's lock without waiting; holding it already is taking it."""
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def unlock(self, byte: int) -> None:
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, byte)

    def orphaned(self) -> bool:
        """Whether the writer is gone for good. Takes the writer's lock when it is."""
        # Somebody may have closed all descriptors (daemons do), and the locks with them: believe the process table too.
        if process.alive(self.longs[W_PID], self.longs[W_STARTED]):
            return False
        return self.lock(WRITER)

    # -- written

    def claim(self, resource: bytes, kept: int = 0) -> None:
        """Become the writer: name the process and start with its resource."""
        self.writer_elsewhere = False
        self.longs[W_PID] = os.getpid()
        self.longs[W_STARTED] = process.moment()
        self.touch()
        self.announce(resource, kept)

    def touch(self) -> None:
        self.longs[W_TOUCHED] = int(time.time())

    def announce(self, resource: bytes, kept: int = 0) -> None:
        """Write a RESOURCE frame, unless it is the last one; the scopes before it are not valid after it. ``kept``: bytes at the end
        that are for something else."""
        fits = not kept or self.position + len(resource) + FRAME_HEADER + kept <= self.capacity
        if resource != self.spoken and fits and self.write(Kind.RESOURCE, NO_SCOPE, resource):
            self.spoken, self.scopes = resource, {NO_SCOPE}

    @property
    def capacity(self) -> int:
        """Up to where frames may go: behind the last one there is always room for a terminator."""
        return self.size - 4

    def write(self, kind: int, scope: int, payload: bytes, priority: int = 0) -> bool:
        """Append a frame; False when it does not fit. Safe against signal handlers that do the same (see ``reserve``)."""
        size = len(payload) + FRAME_HEADER
        meta = kind | priority << 8 | scope << 16
        crc = zlib.crc32(payload, meta)
        # From here on to ``position = end`` nothing is called, so no signal handler runs in between.
        words = self.words
        start = self.position
        end = start + size + 3 & -4
        if end > self.size - 4:
            return False
        words[end >> 2] = 0
        self.position = end
        try:
            index = start >> 2
            words[index + 1] = crc ^ self.seed
            words[index + 2] = meta
            self.memory[start + FRAME_HEADER : start + size] = payload
            words[index] = size
            self.created[kind] += 1
        except BaseException:
            self.repair(start, end)
            raise
        return True

    def repair(self, start: int, end: int) -> None:
        """After an exception out of a signal handler: the frame at ``start`` is complete, or was never there."""
        words = self.words
        index = start >> 2
        if words[index]:
            return
        if self.position == end:
            self.position = start
            return
        # The handler wrote a frame of its own behind ours: leave a hole that readers step over.
        words[index + 2] = int(Kind.PADDING)
        words[index] = end - start

    def settle(self, start: int | None = None) -> None:
        """The writer is gone: find the end of its last complete frame, where the next one goes on. It began at ``start``."""
        position = start or max(HEADER_BYTES, min(reader.position for reader in self.readers))
        while (end := self.following(position) or self._hop(position)) is not None:
            position = end
        self.words[position >> 2] = 0
        self.position = self.longs[W_POSITION] = position
        self.settled = True

    def _hop(self, position: int) -> int | None:
        """Over a corrupt frame, when a sound one or the end lies behind it."""
        size = self.words[position >> 2]
        end = position + size + 3 & -4
        if size < FRAME_HEADER or end > self.capacity:
            return None
        return end if self.words[end >> 2] == 0 or self.following(end) is not None else None

    def balance(self) -> None:
        """Put the books right: a writer may die between a frame and its counter, a shipper between a counter and the cursor."""
        ledger.balance(self.longs, [reader.count() for reader in self.readers])

    def following(self, position: int) -> int | None:
        """Where the frame at ``position`` ends, if there is a complete one."""
        if position >= self.capacity:
            return None
        index = position >> 2
        size, meta = self.words[index], self.words[index + 2]
        end = position + size + 3 & -4
        if size < FRAME_HEADER or end > self.capacity:
            return None
        if meta & 0xFF == Kind.PADDING:
            return end
        payload = self.memory[position + FRAME_HEADER : position + size]
        return end if zlib.crc32(payload, meta) ^ self.seed == self.words[index + 1] else None

    def pending(self) -> bool:
        """Whether a frame is not done with."""
        return bool(self.holds or self.replay) or any(reader.pending() for reader in self.readers)

    @property
    def done(self) -> bool:
        """Whether nothing that was written is still to be shipped, handled or kept."""
        return not self.holds and all(reader.position == self.position for reader in self.readers)

    def rewind(self) -> None:
        """Start over as a new generation; only with nothing held, by the one process that writes and ships."""
        longs = self.longs
        self.words[HEADER_BYTES >> 2] = 0
        for row in range(ROWS):
            longs[W_CURSOR + row] = longs[W_SENT + row] = HEADER_BYTES
        longs[W_HELD] = 0
        longs[W_GENERATION] += 1
        self.seed = seed(longs[W_GENERATION])
        self.sealed = False
        self.position = longs[W_POSITION] = HEADER_BYTES
        self.spoken, self.scopes = None, {NO_SCOPE}
        for reader in self.readers:
            reader.restart()

    def shed(self) -> None:
        """Unmap the pages for now; they stay in the page cache. A backlog does not read as a leak."""
        with contextlib.suppress(OSError, ValueError):
            self.memory.madvise(mmap.MADV_DONTNEED)

    # -- left

    def close(self) -> None:
        """Unmap, and give up the locks. In a forked child this touches neither the parent's locks nor its data."""
        if self.path is not None:
            in_use.discard(self.path)
        fd, self.fd = self.fd, -1
        self.limit = 0
        with contextlib.suppress(BufferError, ValueError):
            self.created.release()
            self.words.release()
            self.longs.release()
            self.memory.close()
        with contextlib.suppress(OSError):
            # Somebody may have closed it behind our back, and the number be in use for something else.
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == self.identity:
                os.close(fd)

    def remove(self) -> None:
        """Unlink and close. The name goes first: once the locks are gone, another process may take the file."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108
        self.close()
