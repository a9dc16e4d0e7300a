"""What is no longer taken when the spool fills up."""

from __future__ import annotations

from typing import Final

#: Above this share of the bound, frames below that priority are not taken.
LEVELS: Final = ((0.90, 3), (0.75, 2), (0.50, 1))


def floor(used: int, bound: int) -> int:
    """The least priority that is taken while so many bytes of the bound are used."""
    # No generator: one that is left before its end is closed by its destructor, where a handler's exception would be lost.
    for above, least in LEVELS:
        if used > above * bound:
            return least
    return 0


def next_rise(used: int, bound: int, position: int, end: int) -> int:
    """The position at or behind ``position`` at which the floor rises next, in a segment that ends at ``end``."""
    ahead = [rise for above, _ in LEVELS if (rise := int(above * bound) - used) >= position]
    return min(ahead, default=end)
