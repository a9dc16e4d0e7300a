"""Run something when a module gets imported, without importing it.

An installed library that the application never imports costs nothing, and ``setup()`` may be called before Django's settings exist.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Hook = Callable[[ModuleType], Any]


class _Loader(importlib.abc.Loader):
    """The real loader, and afterwards the hooks."""

    def __init__(self, inner: Any, done: Callable[[ModuleType], None]) -> None:
        self._inner = inner
        self._done = done

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._inner.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        # The module keeps its own loader: pkgutil, inspect and importlib.resources look at it.
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        self._done(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class ImportHooks(importlib.abc.MetaPathFinder):
    """A finder in front of the others that finds nothing by itself."""

    def __init__(self) -> None:
        self._hooks: dict[str, list[Hook]] = {}
        self._busy = threading.local()

    def when_imported(self, name: str, hook: Hook) -> None:
        """Call ``hook(module)`` now when ``name`` is imported already, otherwise right after its import."""
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            hook(module)
            return
        self._hooks.setdefault(name, []).append(hook)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self._hooks or getattr(self._busy, "name", None) == fullname:
            return None
        self._busy.name = fullname
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._busy.name = None
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self._run)
        return spec

    def _run(self, module: ModuleType) -> None:
        for hook in self._hooks.pop(module.__name__, ()):
            hook(module)

    def remove(self) -> None:
        """Forget every hook that has not run."""
        self._hooks.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)
