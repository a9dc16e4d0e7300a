"""Run the probe in a process of its own, for so long and no longer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

#: Of the whole time: what the probe may take, and what of that the sending may take.
_PROBE: Final = 0.8
_SENDING: Final = 0.35
_SAID: Final = 2000


def examine(settings: str | None, seconds: float) -> dict[str, Any]:
    """The probe's facts. ``stuck`` names the step that it did not come back from, ``said`` what it printed then."""
    with tempfile.TemporaryDirectory(prefix="chegou-otel-doctor-") as folder:
        facts_path, said_path = Path(folder, "facts.json"), Path(folder, "said")
        with said_path.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "chegou_otel.cli.diagnosis.probe", str(facts_path), settings or "", str(seconds * _SENDING)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # what the application starts ends with it
            )
        _wait(process, seconds * _PROBE)
        try:
            facts: dict[str, Any] = json.loads(facts_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            facts = {"step": "starting Python"}
        said_text = said_path.read_text(encoding="utf-8", errors="replace")[-_SAID:]
    if not facts.get("finished"):
        facts.update(stuck=facts["step"], code=process.returncode, said=said_text.strip())
    return facts


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
