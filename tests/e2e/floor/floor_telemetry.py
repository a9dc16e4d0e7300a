"""``setup()``, and a line per process about what became of everything that it recorded."""

import atexit
import json
import os

import chegou_otel


def tell_ledger():
    rows = telemetry.runtime.recorder.ledger()
    names = ("created", "delivered", "rejected", "ambiguous", "dropped", "held")
    line = {"pid": os.getpid(), **{row: {name: getattr(account, name) for name in names} for row, account in rows.items()}}
    with open(os.environ["FLOOR_LEDGERS"], "a") as file:
        file.write(json.dumps(line) + "\n")


atexit.register(tell_ledger)  # before ours, so it runs after ours
telemetry = chegou_otel.setup(
    os.environ.get("FLOOR_SERVICE", "floor"), active="always", exit_timeout=float(os.environ.get("CHEGOU_OTEL_EXIT_TIMEOUT", "10"))
)
