"""The file format: torn tails, corrupt frames, generations, locks, folders, full disks."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import time

import pytest

from chegou_otel.delivery import folder, segments
from chegou_otel.delivery.frames import FRAME_HEADER, HEADER_BYTES, NO_SCOPE, Kind
from chegou_otel.delivery.readers import Batch
from chegou_otel.delivery.segments import SHIPPER, WRITER, NotOurs, Segment
from tests.delivery.items import span
from tests.delivery.receiver import wait_for
from tests.delivery.test_forks import ended, forked

SIZE = 64 * 1024


@pytest.fixture
def segment(tmp_path):
    made = Segment.create(str(tmp_path), SIZE)
    made.claim(b"resource")
    made.write(Kind.SCOPE, 1, b"scope")
    yield made
    if made.fd >= 0:
        made.close()


def read(segment, row=0):
    """Every item that a new reader finds."""
    found = Batch()
    segment.readers[row].restart()
    segment.readers[row].fill(found, 1 << 30, 1 << 30)
    return [item for scopes in found.groups.values() for items in scopes.values() for item in items]


def reopened(segment):
    """The same file, as an adopter sees it after the writer's death."""
    segments.in_use.discard(segment.path)
    return Segment.open(segment.path)


def test_a_frame_without_its_length_does_not_exist(segment):
    """Whatever a dying writer left behind the last complete frame is ignored, and the next writer goes on there."""
    segment.write(Kind.SPAN, 1, b"complete")
    torn = segment.position
    segment.memory[torn + 4 : torn + 200] = os.urandom(196)

    other = reopened(segment)
    assert read(other) == [b"complete"]
    other.settle()
    assert other.position == torn
    other.write(Kind.SPAN, 1, b"next")
    assert read(other) == [b"complete", b"next"]
    other.close()


def test_any_single_flipped_bit_is_found(segment):
    """A frame is delivered as it was written or not at all; the others still are, unless the length itself is wrong."""
    chance = random.Random(7)
    starts = []
    for number in range(30):
        starts.append(segment.position)
        segment.write(Kind.SPAN, 1, b"payload %03d" % number + bytes(number))
    whole = {b"payload %03d" % number + bytes(number) for number in range(30)}
    for _ in range(300):
        which = chance.randrange(30)
        position = chance.randrange(starts[which] + 4, starts[which] + FRAME_HEADER + 11 + which)
        bit = 1 << chance.randrange(8)
        segment.memory[position] ^= bit
        other = reopened(segment)
        assert set(read(other)) <= whole
        other.close()
        segment.memory[position] ^= bit


def test_a_corrupt_frame_is_counted_and_stepped_over(make, receiver, scope):
    """In a dead process's segment it costs itself only."""
    recorder = make("http://127.0.0.1:9")
    for number in range(3):
        recorder.append(Kind.SPAN, scope, span(f"span {number}"))
    current = recorder.pool.current
    position = current.memory.find(b"span 1")
    current.memory[position] = ord("X")
    recorder.shutdown(0)

    heir = make(receiver.url)
    heir.start()
    wait_for(lambda: receiver.counts() == {"span 0": 1, "span 2": 1})
    wait_for(lambda: not heir.pool.adopted)
    heir.append(Kind.SPAN, scope, span("own"))
    heir.flush(2)
    account = heir.ledger()["traces"]
    assert account.dropped == {"corrupt": 1}
    assert account.held == 0


def test_frames_of_an_earlier_generation_are_dead(segment):
    """A file is used again without being wiped."""
    segment.write(Kind.SPAN, 1, b"old old old")
    segment.write(Kind.SPAN, 1, b"old old old")
    end = segment.position
    segment.rewind()
    segment.claim(b"resource")
    segment.write(Kind.SCOPE, 1, b"scope")
    segment.write(Kind.SPAN, 1, b"new new new")
    # As if a crash had lost the terminator: the bytes behind are a frame, but of another generation.
    assert segment.position < end
    segment.words[segment.position >> 2] = 11 + FRAME_HEADER

    other = reopened(segment)
    assert read(other) == [b"new new new"]
    other.close()


def test_scopes_and_resources_hold_from_where_they_stand(segment):
    """An adopter that starts in the middle knows the scope of what it reads."""
    segment.write(Kind.SPAN, 1, b"first")
    segment.readers[0].fill(batch := Batch(), 1 << 20, 10)
    segment.readers[0].commit(batch.marks[0])
    segment.write(Kind.LOG, 1, b"log")
    segment.write(Kind.SPAN, 1, b"second")
    segment.announce(b"other resource")
    segment.write(Kind.SCOPE, 1, b"other scope")
    segment.write(Kind.SPAN, 1, b"third")

    other = reopened(segment)
    other.readers[0].resume()
    other.readers[0].fill(batch := Batch(), 1 << 20, 10)
    assert batch.groups == {b"resource": {b"scope": [b"second"]}, b"other resource": {b"other scope": [b"third"]}}
    other.close()


def test_nothing_fits_behind_the_end(segment):
    while segment.write(Kind.SPAN, 1, bytes(1000)):
        pass
    while segment.write(Kind.SPAN, 1, b""):
        pass
    assert segment.position <= segment.capacity
    assert all(item in (bytes(1000), b"") for item in read(segment))


def test_files_are_private_and_preallocated(segment):
    status = os.stat(segment.path)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_blocks * 512 >= SIZE
    assert HEADER_BYTES < segment.position < HEADER_BYTES + 200
    assert not segment.scopes - {NO_SCOPE}


def in_child(check):
    return ended(forked(check)) == 0


def test_locks_keep_others_out(segment):
    """Another process gets neither byte, and a child's closing does not give the parent's away."""

    def closes():
        segment.close()

    def tries():
        segments.in_use.clear()
        other = Segment.open(segment.path)
        assert not other.lock(SHIPPER)
        assert not other.lock(WRITER)

    assert in_child(closes)
    assert in_child(tries)


def test_a_living_writer_without_locks_is_not_taken_for_dead(segment):
    """Daemons close all descriptors, and the locks go with them; the process table still knows."""
    segment.unlock(WRITER)
    segment.unlock(SHIPPER)

    def tries():
        segments.in_use.clear()
        other = Segment.open(segment.path)
        assert other.lock(SHIPPER)
        assert not other.orphaned()

    assert in_child(tries)


def test_closing_spares_a_descriptor_that_is_somebody_elses_by_now(segment, tmp_path):
    number = segment.fd
    with open(tmp_path / "other", "w") as other:
        os.dup2(other.fileno(), number)
    segment.close()
    os.write(number, b"still open")
    os.close(number)
    assert (tmp_path / "other").read_bytes() == b"still open"


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\0" * SIZE, os.urandom(SIZE)], ids=["empty", "short", "zeros", "random"])
def test_a_foreign_file_is_left_alone(tmp_path, content):
    path = tmp_path / "x.seg"
    path.write_bytes(content)
    with pytest.raises(NotOurs):
        Segment.open(str(path))
    assert path.read_bytes() == content


def test_another_services_segment_and_links_are_refused(segment, tmp_path):
    segments.in_use.discard(segment.path)
    with pytest.raises(NotOurs):
        Segment.open(segment.path, service=5)
    link = tmp_path / "link.seg"
    link.symlink_to(segment.path)
    with pytest.raises(NotOurs):
        Segment.open(str(link))


# -- folders


@pytest.mark.parametrize("service", ["../../etc", "a/b", "", ".", "..", "ü" * 100, "x" * 300, "a b"])
def test_any_service_name_is_one_safe_folder(service):
    name = folder.folder_name(service)
    assert "/" not in name
    assert name.strip(".")
    assert len(name) < 100
    assert name != folder.folder_name(service + "_")


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No state folder, and a temporary one of our own."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_default_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path, reason = folder.choose("shop", None)
    assert (path, reason) == (f"{tmp_path}/state/chegou-otel/shop", "")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_falls_back_to_the_temporary_folder(homeless):
    path, reason = folder.choose("shop", None)
    assert path == f"{homeless}/chegou-otel-{os.geteuid()}/shop"
    assert "/proc/nowhere" in reason


def test_refuses_a_planted_link(homeless, tmp_path):
    """Somebody else's link in the temporary folder leads nowhere."""
    target = tmp_path / "target"
    target.mkdir()
    (homeless / f"chegou-otel-{os.geteuid()}").symlink_to(target)
    path, reason = folder.choose("shop", None)
    assert path is None
    assert "symbolic link" in reason
    assert list(target.iterdir()) == [] or not any(target.glob("shop/*"))


def test_tightens_its_own_folder(tmp_path):
    (tmp_path / "shop").mkdir(mode=0o755)
    os.chmod(tmp_path / "shop", 0o777)
    path, _ = folder.choose("shop", str(tmp_path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_half_made_files_are_removed_in_time(tmp_path):
    for name, age in ((".old.new", 7200), (".young.new", 60)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert folder.segments(str(tmp_path)) == []
    assert os.listdir(tmp_path) == [".young.new"]


def test_a_segment_that_is_finished_meanwhile_hides_no_other(tmp_path):
    """Between the look at the folder and the look at the file, its maker gives it its real name."""
    (tmp_path / "1.seg").touch()
    (tmp_path / ".2.new").symlink_to(tmp_path / "gone")
    assert folder.segments(str(tmp_path)) == [str(tmp_path / "1.seg")]


def test_memory_when_no_folder_can_be_used(make, receiver, scope, homeless, monkeypatch):
    """Everything is delivered as usual, and the state says what was not possible."""
    monkeypatch.setenv("TMPDIR", "/proc/neither")
    recorder = make(receiver.url, spool_dir="/proc/nor")
    for number in range(100):
        assert recorder.append(Kind.SPAN, scope, span(f"span {number}"))
    assert recorder.flush(3)
    assert len(receiver.names()) == 100
    assert recorder.storage.kind == "memory"
    assert "/proc/nor/shop" in recorder.storage.reason


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_refuses_a_folder_of_another_user(homeless):
    ours = homeless / f"chegou-otel-{os.geteuid()}"
    ours.mkdir()
    os.chown(ours, 12345, 12345)
    path, reason = folder.choose("shop", None)
    assert path is None
    assert "belongs to user 12345" in reason


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted], check=True)
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=True)


@pytest.mark.root
def test_a_full_disk_costs_counted_drops_and_no_bus_error(make, receiver, scope, small_disk):
    """What fits is kept; the rest is counted; nothing dies; and it goes on when there is room again."""
    recorder = make("http://127.0.0.1:9", spool_dir=small_disk, segment_bytes=256 * 1024)
    accepted = sum(recorder.append(Kind.SPAN, scope, span("x", 1000)) for _ in range(5000))
    account = recorder.ledger()["traces"]
    assert 500 < accepted < 1100
    assert account.held == accepted
    assert account.dropped == {"full": 5000 - accepted}
    assert "No space left" in recorder.storage.reason
    recorder.shutdown(0.1)

    heir = make(receiver.url, spool_dir=small_disk, segment_bytes=256 * 1024)
    assert heir.append(Kind.SPAN, scope, span("heir"))
    assert heir.storage.kind == "memory"
    wait_for(lambda: len(receiver.names()) == accepted + 1)
    wait_for(lambda: not list((small_disk / "shop").iterdir()))


@pytest.mark.root
def test_a_read_only_disk(make, receiver, scope, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    recorder = make(receiver.url, spool_dir=small_disk, memory=False)
    assert recorder.append(Kind.SPAN, scope, span("x"))
    assert recorder.flush(3)
    assert "Read-only file system" in recorder.storage.reason


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_worker_that_gives_up_root(make, receiver, scope, tmp_path):
    """The master's folder is root's; the worker gets one beside it, and delivers."""
    os.chmod(tmp_path, 0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            os.chmod(parent, stat.S_IMODE(parent.stat().st_mode) | 0o011)
    recorder = make(receiver.url)
    recorder.append(Kind.SPAN, scope, span("master"))

    def worker():
        os.setgid(65534)
        os.setuid(65534)
        recorder.append(Kind.SPAN, scope, span("worker"))
        assert recorder.storage.path == f"{tmp_path}/shop-65534"
        assert recorder.flush(5)

    assert ended(forked(worker)) == 0
    assert recorder.flush(5)
    assert receiver.counts() == {"master": 1, "worker": 1}


def test_importing_does_nothing():
    """No thread, no file, no http client started by an import."""
    code = "import threading, sys, chegou_otel.delivery.courier, chegou_otel.delivery.recorder; assert threading.active_count() == 1"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
