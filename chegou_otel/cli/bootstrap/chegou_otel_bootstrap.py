"""Sets up telemetry in a Python that `chegou-otel run` started.

Called by our sitecustomize, or by opentelemetry-instrument through the entry point beside this file when its own
sitecustomize stands before ours on the path.
"""  # noqa: INP001 - imported from a plain folder, only under `chegou-otel run`

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def set_up() -> None:
    """Call chegou_otel.setup(); what goes wrong is one line on stderr, in the command's own process only."""
    pid, _, folder = os.environ.get("_CHEGOU_OTEL_RUN", "").partition(":")
    if folder and folder not in sys.path and importlib.util.find_spec("chegou_otel") is None:
        sys.path.append(folder)
    try:
        import chegou_otel

        with program_name():
            chegou_otel.setup()
    except Exception as error:
        if pid == str(os.getpid()):
            sys.stderr.write(f"chegou-otel run: {sys.executable} runs without telemetry: {type(error).__name__}: {error}\n")


@contextmanager
def program_name() -> Iterator[None]:
    """So early `python -m rq` has `-m` for its name; setup() tells a worker from a web server by its real one."""
    name = sys.argv[:1]
    if name == ["-m"]:
        module = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
        sys.argv[0] = os.path.join(os.sep, *module.split("."), "__main__.py")  # noqa: PTH118 - only looks like a path
    try:
        yield
    finally:
        sys.argv[:1] = name
