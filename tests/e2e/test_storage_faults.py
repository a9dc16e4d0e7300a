"""What a service does when the place for what is not delivered yet fails, while its receiver is away: the books balance all the same."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

import pytest

from chegou_otel.delivery.pool import RETRY_AFTER
from tests.delivery.receiver import PATIENCE, wait_for
from tests.e2e.faulty import Service

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(120)]

#: Small segments and large spans: a few hundred requests fill several.
SEGMENT, FILLER = 256 * 1024, 2000
REQUESTS = 600
NOWHERE = {"CHEGOU_OTEL_SPOOL_DIR": "/proc/none", "XDG_STATE_HOME": "/proc/none", "TMPDIR": "/proc/none"}


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path, FAULTY_SEGMENT=str(SEGMENT), FAULTY_FILLER=str(FILLER))
    yield made
    made.close()


@pytest.fixture
def small_disk(service):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    service.spool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", service.spool], check=True)
    yield service.spool
    subprocess.run(["umount", "-l", service.spool], check=True)


def end(service, process):
    """End it with its receiver away; then the next process of the service sends what is left."""
    service.socket.begin("refuse")
    process.go(5)
    assert process.end() < 2.0 + 1.5 * PATIENCE
    service.socket.heal()
    heir = service.start()
    heir.go(1)
    wait_for(lambda: heir.tell("flush 5") and not any(each["held"] for each in heir.look()["ledger"].values()), 30, "everything to be sent")
    heir.end()
    return service.check()


def dropped(process):
    return process.look()["ledger"]["traces"]["dropped"]


def drops(found):
    return {signal: dict(each["dropped"]) for signal, each in found.items() if each["dropped"]}


@pytest.mark.root
def test_somebody_else_fills_the_disk(service, small_disk):
    """What has its room is kept, the rest is a counted drop, no page is without a block behind it; with room, all is well again."""
    process = service.start()
    process.go(20)
    process.flush()

    service.socket.begin("refuse")
    filler = small_disk / "somebody else's"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))
    process.go(REQUESTS)
    full = process.look()
    assert full["ledger"]["traces"]["dropped"].get("full"), full
    assert "No space left" in full["storage"][1]
    filler.unlink()
    service.socket.heal()
    process.flush()
    time.sleep(RETRY_AFTER + 0.1)  # so often a disk is asked
    before = dropped(process)
    process.go(100)
    process.flush()
    assert dropped(process) == before

    found = end(service, process)
    assert set(drops(found)["traces"]) == {"full"}


@contextlib.contextmanager
def read_only(folder):
    """For whoever is no root by its mode, for root by a mount."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    if subprocess.run(["mount", "--bind", folder, folder], check=False).returncode:
        pytest.skip("no mounts here")
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_the_folder_becomes_read_only(service):
    """The segment that is there goes on; what finds no room in it is a counted drop, until segments can be made again."""
    process = service.start()
    process.go(20)
    process.flush()

    service.socket.begin("refuse")
    with read_only(service.spool / "shop"):
        process.go(REQUESTS)
        look = process.look()
        assert look["ledger"]["traces"]["dropped"].get("full"), look
        assert look["storage"][1] in ("Read-only file system", "Permission denied"), look
    wait_for(lambda: process.go(1) and process.look()["storage"][1] == "", what="a segment")
    before = dropped(process)
    process.go(REQUESTS)
    assert dropped(process) == before
    service.socket.heal()
    process.flush()

    found = end(service, process)
    assert set(drops(found)["traces"]) == {"full"}


def test_no_folder_at_all(service):
    """Memory does: what the receiver was away for arrives. Only the end takes along what it finds, and that is counted and said."""
    service.env.update(NOWHERE)
    process = service.start()
    process.go(20)
    process.flush()
    assert process.look()["storage"][0] == "memory"

    service.socket.begin("refuse")
    process.go(REQUESTS)
    service.socket.heal()
    process.flush()
    assert not process.look()["ledger"]["traces"]["dropped"]

    service.socket.begin("refuse")
    process.go(REQUESTS)
    process.end()
    found = service.check()
    assert drops(found)["traces"] == {"closed": 2 * REQUESTS}
    assert f"{2 * REQUESTS} traces dropped (closed)" in process.said()
