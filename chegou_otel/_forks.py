"""What a forked child finds: locks that are free, and one hook for the little that cannot wait for its first use.

A page that a child touches is copied, and that is most of what a work-horse costs. So whoever keeps something of its process compares
``generation`` with the one that it was made in, when it is used; only what is too hot to ask is renewed by a hook.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: How many forks lie between this process and the one that imported us.
generation: int = 0
_renewals: list[Callable[[], object]] = []


def in_child(renew: Callable[[], object]) -> None:
    """Call ``renew`` in every forked child, before anything else of ours runs there."""
    _renewals.append(renew)


def renew() -> None:
    """Called after each fork by Python, or by whoever forks past it."""
    global generation
    generation += 1
    for renew in _renewals:
        renew()


os.register_at_fork(after_in_child=renew)


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


class _Nobody:
    def renew(self) -> None:
        """Never called."""


def nothing_to_renew(_provider: object) -> Callable[[], None]:
    """In the place of the SDK's ``_handle_fork``, of which its providers keep a weak reference and call it after a fork.

    The object is gone at once, and so is the call: locks are free here, and the resource stays, because the instance's ID names a process
    that lives, not a fork that ends.
    """
    return _Nobody().renew
