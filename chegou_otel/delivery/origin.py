"""Whose exception is it: a failure of our code, or something that a signal handler raised into it?"""

from __future__ import annotations

import os
from typing import Final

from chegou_otel import _guard

_OURS: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120
_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120
_PACKAGES: Final = ("site-packages", "dist-packages")


def ours(error: BaseException) -> bool:
    """Whether our code failed, or the standard library under it.

    What a signal handler raises has the handler's frame on its way, which is neither; what another thread sets has a
    registered type.
    """
    if not isinstance(error, Exception) or _guard.is_foreign(error):
        return False
    trace = error.__traceback__
    while trace is not None:
        if not _known(trace.tb_frame.f_code.co_filename):
            return False
        trace = trace.tb_next
    return True


def _known(file: str) -> bool:
    if file.startswith((_OURS, "<frozen ")):
        return True
    return file.startswith(_LIBRARY) and not any(each in file for each in _PACKAGES)
