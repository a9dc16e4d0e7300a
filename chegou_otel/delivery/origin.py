"""Whose exception is it, where no application code is ever called: a failure of ours, or of a signal handler?

Everywhere else the question is one of types (``_guard.foreign_in``): a failing ``__str__`` of the application's is stopped by a
guard although its frame is not ours. In the recorder it need not be, so every frame counts, and a handler whose exception nobody
registered is told as well.
"""

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
    registered type, and is raised again here, also when ``error`` hides it.
    """
    _guard.pass_foreign(error)
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
