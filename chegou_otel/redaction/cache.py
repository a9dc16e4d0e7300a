"""A cache that stays small: two generations, bounded by entries and by characters. No lock: whoever loses a race computes once more."""

from __future__ import annotations

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """What was used since the last turn of generations survives the next one."""

    __slots__ = ("_max_count", "_max_size", "_old", "_size", "young")

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count // 2
        self._max_size = max_size // 2
        self._size = 0
        self.young: dict[str, Value] = {}
        self._old: dict[str, Value] = {}

    def get(self, key: str) -> Value | None:
        value = self.young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: str, value: Value) -> None:
        size = len(key) + (len(value) if isinstance(value, str) else 0)
        if size > self._max_size // 16:
            return
        if len(self.young) >= self._max_count or self._size + size > self._max_size:
            self._old, self.young, self._size = self.young, {}, 0
        self.young[key] = value
        self._size += size

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
