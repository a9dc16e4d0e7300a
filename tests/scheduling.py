"""Which tests go to the same worker of xdist: those that share what is slow to start."""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

#: Files whose tests share nothing, or only with those of which this finds the same.
APART = {
    "tests/e2e/test_matrix.py": re.compile(r"\[(.+?)(?: x |\])"),  # a worker class runs once
    "tests/e2e/test_demo.py": re.compile(r"(.+)"),
    "tests/e2e/test_kills.py": re.compile(r"(.+)"),
    "tests/e2e/test_orphans.py": re.compile(r"(.+)"),
    "tests/e2e/test_strikes.py": re.compile(r"(.+)"),
}


class ByServers(LoadScopeScheduling):
    """A file's tests share its servers, so they stay together."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        found = APART[file].search(test) if file in APART else None
        return f"{file}::{found[1]}" if found else file
