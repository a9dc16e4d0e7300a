"""Looking for words in the segments of a service, whoever has them."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from chegou_otel.delivery import folder
from chegou_otel.delivery.segments import in_use

if TYPE_CHECKING:
    from chegou_otel.delivery.pool import Pool


def mentions(pool: Pool, words: bytes) -> bool:
    """Whether a segment of the service, of this process or another one on this host, contains ``words``."""
    # Nobody adopts meanwhile: to close a file that another thread has just opened would drop its locks.
    with pool.adopting:
        if any(segment.memory.find(words) >= 0 for segment in pool.all()):
            return True
        if not pool._chosen:
            pool._choose()
        path = pool.storage.path
        return path is not None and any(each not in in_use and _contains(each, words) for each in folder.segments(path))


def _contains(path: str, words: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as content:
            return content.find(words) >= 0
    except (OSError, ValueError):
        return False
    finally:
        os.close(fd)
