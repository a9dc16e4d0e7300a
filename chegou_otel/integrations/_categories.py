"""Categories of jobs: the setting that maps patterns of function names to a closed set of names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The category of a function that no pattern names.
OTHER: Final = "other"


def parse(item: str) -> tuple[str, str]:
    """An item of the setting ``rq_job_categories``, ``shop.reports.*=Report Generation``, as pattern and category.

    Raises:
        ValueError: it does not look like that.
    """
    pattern, equals, category = (part.strip() for part in item.partition("="))
    if not (pattern and equals and category):
        raise ValueError(f"{item!r} is not pattern=category, such as 'shop.reports.*=Report Generation'")
    return pattern, category


def categorizer(items: Sequence[str]) -> Callable[[str], str] | None:
    """The category of a function: that of the first pattern which fits its dotted name. ``None`` without a setting."""
    pairs = [parse(item) for item in items]
    if not pairs:
        return None
    return lambda function: next((category for pattern, category in pairs if fnmatchcase(function, pattern)), OTHER)
