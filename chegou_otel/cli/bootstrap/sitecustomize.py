"""Python imports this by name at its start, because `chegou-otel run` put this folder first on PYTHONPATH.

It runs in every Python that the command starts, so it breaks nothing. The `sitecustomize` that would have been imported
without us runs first, under its own name.
"""  # noqa: INP001 - Python looks for it by this name, in a plain folder

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_next() -> None:
    """Run the sitecustomize that ours hides: the user's, the distribution's, or that of opentelemetry-instrument."""
    path = [folder for folder in sys.path if Path(folder).resolve() != HERE]
    spec = PathFinder.find_spec("sitecustomize", path)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


try:
    run_next()
finally:
    import_module("chegou_otel_bootstrap").set_up()
