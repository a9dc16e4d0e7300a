"""Who reports: one process per Redis, elected there.

The lease is one key that expires. Whoever holds it renews it; anybody may take it when it is free, or from somebody of a worse rank.
So a leader that dies is replaced within the lease, and a worker that appears takes over from a web process.
"""

from __future__ import annotations

from enum import IntEnum
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable


class Rank(IntEnum):
    """The better, the lower."""

    ALONE = 0  # `chegou-otel rq-reporter`
    WORKER = 1
    SCHEDULER = 2
    WEB = 3


_TAKE: Final = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and tonumber(string.match(held, '^%d+') or '0') <= tonumber(ARGV[2]) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
"""
_GIVE_BACK: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""


def key_of(prefix: str) -> str:
    """The lease's key. RQ's own keys begin with its prefix, ours never do."""
    return f"chegou_otel:reporter:{prefix}"


class Lease:
    """A candidate's view of the lease."""

    def __init__(self, client: Callable[[], Any], prefix: str, rank: Rank, seconds: float) -> None:
        self._client = client
        self._key = key_of(prefix)
        self._rank = rank
        self._me = f"{int(rank)}:{token_hex(8)}"
        self._milliseconds = int(seconds * 1000)
        self.held = False

    def take(self) -> bool:
        """Take or renew it; whether it is ours now.

        Raises:
            redis.RedisError: Redis did not answer in time, or refused. Then it counts as not ours.
        """
        self.held = False
        self.held = bool(self._client().eval(_TAKE, 1, self._key, self._me, int(self._rank), self._milliseconds))
        return self.held

    def give_back(self) -> None:
        """Let the next one have it at once."""
        if self.held:
            self.held = False
            self._client().eval(_GIVE_BACK, 1, self._key, self._me)
