"""What a forked child finds: locks that are free, and one hook for the little that cannot wait for its first use.

A page that a child touches is copied, and that is most of what a work-horse costs. So whoever keeps something of its process compares
``generation`` with the one that it was made in, when it is used; only what is too hot to ask is renewed by a hook. A child that its
parent made ready for is renewed by its **heir** alone.

Some locks are nobody's to renew: a stream's, the resolver's. What takes them on a thread of ours is a **calm** block, and a fork waits
for its end.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How many forks lie between this process and the one that imported us.
generation: int = 0
_renewals: list[Callable[[], object]] = []
_heir: tuple[int, Callable[[], object]] | None = None
#: Whether this process, or one that it descends from, is such a child.
inherited = False
#: How long a fork waits for a calm block, and a calm block for a fork. Either may hang.
_PATIENCE: Final = 0.05


def in_child(renew: Callable[[], object]) -> None:
    """Call ``renew`` in every forked child, before anything else of ours runs there."""
    _renewals.append(renew)


def expect(heir: Callable[[], object] | None) -> None:
    """Let ``heir`` renew the next child of this thread, in place of all others; they do it after all when it fails."""
    global _heir
    _heir = None if heir is None else (threading.get_ident(), heir)


def renew() -> None:
    """Called after each fork by Python, or by whoever forks past it."""
    global generation, inherited, _heir
    generation += 1
    heir, _heir = _heir, None
    if heir is not None and heir[0] == threading.get_ident():
        inherited = True
        try:
            heir[1]()
        except Exception:
            _renew_all()
            raise  # which is printed, no more
    else:
        _renew_all()


def _renew_all() -> None:
    for renew in _renewals:
        renew()


class Calm:
    """Blocks in which no fork happens, as far as waiting for a moment can see to it.

    A lock that is held in such a block would never be free in a child. Application threads may be inside, too, so nobody waits for long.
    """

    __slots__ = ("_generation", "_hangs", "_holder", "_inside", "_lock")

    def __init__(self) -> None:
        self._generation = -1
        self._begin_anew()

    def _begin_anew(self) -> None:
        """With the first use in a process: a child that has none is not made to copy a page for it."""
        if self._generation != generation:
            #: The thread that holds it while it forks, and whether it was not to be had when the process forked last.
            self._holder, self._hangs = 0, False
            #: The thread that is in a block.
            self._inside = 0
            self._lock = threading.RLock()
            self._generation = generation

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._begin_anew()
        lock = self._lock
        held = lock.acquire(timeout=_PATIENCE)
        try:
            if held:
                self._inside = threading.get_ident()
            yield
        finally:
            if held:
                self._inside = 0
                lock.release()
            else:
                self._mend()

    def _mend(self) -> None:
        """An alarm that struck between taking the lock and the block has left it taken by nobody."""
        if not self._inside and not self._holder:
            self._lock = threading.RLock()

    def before(self) -> None:
        """Wait for whoever is inside, but not again for what hangs, nor where an alarm is set: that would be lost here."""
        self._begin_anew()
        patient = not self._hangs and not signal.getitimer(signal.ITIMER_REAL)[0]
        if self._lock.acquire(timeout=_PATIENCE if patient else 0):
            self._holder, self._hangs = threading.get_ident(), False
        else:
            self._hangs = True
            self._mend()

    def after(self) -> None:
        if self._holder == threading.get_ident():
            self._holder = 0
            self._lock.release()


#: What of ours takes locks that nobody renews: a stream's, while a line is written; the C library's, while a name is looked up; and
#: whatever users' callbacks hold that run on our threads.
calm: Final = Calm()
os.register_at_fork(before=calm.before, after_in_parent=calm.after, after_in_child=renew)


class FreeLock:
    """A re-entrant lock as an attribute: each process has its own, so a child's is free whoever held the parent's.

    What is got is the lock itself: an alarm finds no place between taking it and the block that gives it back. Assignments are let go,
    so it also stands in for an attribute in which a base class keeps a lock.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        key = f"{self._name} of {generation}"
        lock = vars(instance).get(key)
        return vars(instance).setdefault(key, threading.RLock()) if lock is None else lock

    def __set__(self, instance: object, lock: object) -> None:
        """The process's own is in force."""


@contextmanager
def unhooked(package: str) -> Iterator[None]:
    """Hooks that ``package`` registers within the block are let go; anybody else's, on another thread, are not.

    The SDK's providers have one each. Ours need none: locks are free here, and the resource stays, because the instance's ID names a
    process that lives, not a fork that ends.
    """
    original = os.register_at_fork

    def register_at_fork(**hooks: Any) -> None:
        if not all(str(getattr(hook, "__module__", "")).startswith(package) for hook in hooks.values()):
            original(**hooks)

    os.register_at_fork = register_at_fork
    try:
        yield
    finally:
        os.register_at_fork = original
