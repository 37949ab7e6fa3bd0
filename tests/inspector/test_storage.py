"""Disks that fill up, logs locked or damaged, folders that go: FAULT, never silence, and back by itself."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time

import pytest

from inspector.inquiry import ask
from inspector.plc.registers import Status
from tests.station import camera, until, write_bundle

PASS, FAULT = 1, 3
READY, LOG_OK = Status.READY, Status.LOG_OK
DISK_MIB = 48


@pytest.fixture
def disk(station):
    """The station's data on a small disk of its own."""
    shutil.rmtree(station.data)
    station.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(station.data)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk needs root and the right to mount a tmpfs")
    write_bundle(station.data / "models" / "part")
    yield Disk(station.data)
    if station.daemon is not None and station.daemon.poll() is None:
        station.kill()
    subprocess.run(["umount", "-l", str(station.data)], check=True)


class Disk:
    """Something else fills it."""

    def __init__(self, folder):
        self._folder = folder
        self._filler = folder / "filler"

    def fill(self, leave_mib=0):
        """Up to what is left, to the last byte where that is nothing."""
        free = shutil.disk_usage(self._folder).free - (leave_mib << 20)
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while free > 0 or not leave_mib:
                free -= file.write(bytes(max(1, min(free, 1 << 20))))

    def free(self):
        self._filler.unlink()


def start(station, plc, log="", **keys):
    station.write(camera(**keys), log=log)
    station.start()
    until(lambda: plc.status() & READY, "READY")


def passes(plc, sequence):
    plc.trigger(sequence)
    until(lambda: (sequence, PASS) in plc.verdicts(), f"part {sequence} passes", 30)


def faults(plc, sequence):
    plc.trigger(sequence)
    until(lambda: (sequence, FAULT) in plc.verdicts(), f"part {sequence} is FAULT", 30)


def rows(station):
    with station.log() as log:
        return {(r.sequence, r.verdict): r.reason for r in log.inspections(limit=None)}


def events(station, kind):
    with station.log() as log:
        return [e for e in reversed(log.events(limit=None)) if e.kind == kind]


def storage_fault(station, plc, said):
    until(lambda: not plc.status() & (READY | LOG_OK), "READY and LOG_OK fall", 20)
    now = ask(station.data)
    assert now["state"] == "fault"
    assert said in now["problems"][0]


def test_a_disk_below_its_floor_is_fault_until_there_is_room(station, plc, disk):
    station.write(camera())
    station.config.write_text(station.config.read_text().replace("min_free_mib = 1", "min_free_mib = 10"))
    station.start()
    until(lambda: plc.status() & READY, "READY")
    passes(plc, 1)
    disk.fill(leave_mib=5)
    storage_fault(station, plc, "the floor is 10 MiB")
    faults(plc, 2)
    disk.free()
    until(lambda: plc.status() & READY, "READY again", 20)
    passes(plc, 3)
    assert rows(station) == {(1, PASS): None, (2, FAULT): "storage", (3, PASS): None}
    assert [e.severity for e in events(station, "disk")] == ["error", "info"]


def test_a_full_disk_takes_no_frame_so_nothing_passes_until_it_does(station, plc, disk):
    station.write(camera())
    station.config.write_text(station.config.read_text().replace("min_free_mib = 1", "min_free_mib = 0"))
    station.start()
    until(lambda: plc.status() & READY, "READY")
    passes(plc, 1)
    until(lambda: ask(station.data)["frames"]["waiting"] == 0, "the frame is stored", 10)
    disk.fill()
    plc.trigger(2)  # its row finds room in the journal, its frame finds none
    until(lambda: len(plc.verdicts()) == 2, "a verdict", 30)
    storage_fault(station, plc, "the disk is full")
    faults(plc, 3)
    time.sleep(2)
    assert not plc.status() & READY
    disk.free()
    until(lambda: plc.status() & READY, "READY again", 20)
    passes(plc, 4)
    assert station.stop() == 0
    assert set(plc.verdicts()) == set(rows(station))
    with station.log() as log:
        assert all(log.get(row.id).frame for row in log.inspections(limit=None) if row.verdict == PASS)


def test_a_journal_that_cannot_grow_is_fault_and_no_row_is_lost(station, plc, disk):
    station.write(camera(trigger="camera", folder={"fps": 50.0}), log='frames = "none"')
    station.config.write_text(station.config.read_text().replace("min_free_mib = 1", "min_free_mib = 0"))
    station.start()
    until(lambda: len(plc.verdicts()) > 5, "verdicts")
    disk.fill()
    until(lambda: plc.verdicts()[-1][1] == FAULT, "FAULT", 120)
    storage_fault(station, plc, "the disk is full")
    disk.free()
    until(lambda: plc.status() & READY and plc.verdicts()[-1][1] == PASS, "passes again", 30)
    assert station.stop() == 0
    seen = plc.verdicts()
    assert [s for s, _ in seen] == list(range(1, len(seen) + 1)), "every part has its verdict"
    assert [v for v in seen if v not in rows(station)] == []
    assert "the log can be written again after: inspection log" in events(station, "log")[-1].message


def test_a_log_locked_for_long_is_fault_and_what_happened_meanwhile_is_written_later(station, plc):
    start(station, plc)
    other = sqlite3.connect(station.data / "inspector.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    faults(plc, 1)
    storage_fault(station, plc, "is locked by another process")
    plc.stop()
    until(lambda: "connection" in station.said().split("waiting for the PLC")[-1], "the PLC is missed", 10)
    time.sleep(3)
    plc.start()
    until(lambda: not events(station, "plc"), "nothing can be logged yet", 1)
    faults(plc, 2)
    other.execute("ROLLBACK")
    until(lambda: plc.status() & READY and plc.status() & LOG_OK, "READY again", 30)
    passes(plc, 3)
    assert rows(station) == {(1, FAULT): "storage", (2, FAULT): "storage", (3, PASS): None}
    missed = events(station, "plc")[0]
    assert missed.severity == "error"
    assert missed.time < events(station, "log")[-1].time, "with the time at which it happened"


def without_a_log(station, plc, said):
    """Every part is FAULT, for longer than a start may take; nothing ends."""
    plc.set_registers(101, [0])
    station.start(INSPECTOR_STATION__STARTUP_TIMEOUT_S="5")
    until(lambda: plc.status() & Status.CAMERA_OK and plc.status() & Status.MODEL_OK, "camera and model")
    faults(plc, 2)
    storage_fault(station, plc, said)
    time.sleep(5)
    faults(plc, 3)
    assert station.daemon.poll() is None
    assert not plc.status() & (READY | LOG_OK)


def test_a_log_that_is_locked_at_start_is_fault_until_it_is_free(station, plc):
    start(station, plc)
    passes(plc, 1)
    assert station.stop() == 0
    other = sqlite3.connect(station.data / "inspector.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    without_a_log(station, plc, "is locked by another process")
    other.execute("ROLLBACK")
    other.close()
    until(lambda: plc.status() & READY, "READY", 20)
    passes(plc, 4)
    assert rows(station) == {
        (1, PASS): None,
        (2, FAULT): "storage",
        (3, FAULT): "storage",
        (4, PASS): None,
    }
    assert [e.severity for e in events(station, "started")] == ["info", "info"]
    assert "is locked by another process" in events(station, "log")[-1].message


@pytest.mark.parametrize("first", [True, False])
def test_a_disk_that_is_full_at_start_is_fault_until_there_is_room(station, plc, disk, first):
    station.write(camera(), log='frames = "none"')
    station.config.write_text(station.config.read_text().replace("min_free_mib = 1", "min_free_mib = 0"))
    if not first:
        station.start()
        until(lambda: plc.status() & READY, "READY")
        passes(plc, 1)
        assert station.stop() == 0
    disk.fill()
    without_a_log(station, plc, "the disk is full")
    disk.free()
    until(lambda: plc.status() & READY, "READY", 20)
    passes(plc, 4)
    found = rows(station)
    assert {(2, FAULT), (3, FAULT), (4, PASS)} <= found.keys()
    assert found[2, FAULT] == found[3, FAULT] == "storage"
    assert station.stop() == 0


@pytest.mark.parametrize("damage", ["pages", "header", "noted"])
def test_a_damaged_log_is_set_aside_and_a_new_one_begun(station, plc, damage):
    start(station, plc)
    passes(plc, 1)
    assert station.stop() == 0
    database = station.data / "inspector.db"
    content = bytearray(database.read_bytes())
    if damage == "pages":
        for page in range(4, len(content) // 4096):
            content[page * 4096 : page * 4096 + 200] = bytes(200)
    elif damage == "header":
        content[:16] = b"no database here"
    else:  # by a daemon that met damage in a log too large to be checked at each start
        (station.data / "inspector.db-damaged").write_text("database disk image is malformed")
    database.write_bytes(content)
    station.start()
    before = len(plc.writes())
    until(lambda: len(plc.writes()) > before and plc.status() & READY, "READY")
    passes(plc, 2)
    kept = [p for p in station.data.glob("inspector-damaged-*") if p.suffix == ".db"]
    assert [p.read_bytes() for p in kept] == [bytes(content)]
    assert rows(station) == {(2, PASS): None}
    told = events(station, "log_set_aside")[0]
    assert told.severity == "error"
    assert kept[0].name in told.message
    assert ask(station.data)["log"]["set_aside"] == [kept[0].name]
    assert kept[0].name in station.command("status").stdout
    assert station.stop() == 0
    station.start()
    until(lambda: ask_quietly(station) == "inspecting", "READY")
    assert len(list(station.data.glob("inspector-damaged-*.db"))) == 1, "once"


def test_a_log_that_is_damaged_while_it_runs_ends_the_daemon_and_is_set_aside_by_the_next(station, plc):
    start(station, plc)
    passes(plc, 1)
    database = station.data / "inspector.db"
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with database.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (database.stat().st_size - 4096))
        with contextlib.suppress(sqlite3.Error):  # makes the daemon look at the file again
            other.execute("PRAGMA user_version = 7")
    plc.trigger(2)
    assert station.daemon.wait(timeout=60) == 1
    assert plc.verdicts()[1:] in ([(2, FAULT)], [])
    assert "is damaged" in station.said().splitlines()[-1]
    assert "Traceback" not in station.said()
    station.start()
    before = len(plc.writes())
    until(lambda: len(plc.writes()) > before and plc.status() & READY, "READY")
    passes(plc, 3)
    assert len(list(station.data.glob("inspector-damaged-*.db"))) == 1


def test_a_frames_folder_that_is_gone_comes_back_or_is_fault(station, plc):
    start(station, plc)
    passes(plc, 1)
    frames = station.data / "frames"
    until(lambda: list(frames.rglob("*.png")), "the first frame", 10)
    shutil.rmtree(frames)
    passes(plc, 2)
    until(lambda: list(frames.rglob("*.png")), "the folder is made anew", 10)
    shutil.rmtree(frames)
    frames.write_text("in its place")
    plc.trigger(3)
    until(lambda: len(plc.verdicts()) == 3, "a verdict", 30)
    storage_fault(station, plc, "cannot be stored")
    faults(plc, 4)
    frames.unlink()
    until(lambda: plc.status() & READY, "READY again", 20)
    passes(plc, 5)
    assert station.stop() == 0
    with station.log() as log:
        last = log.inspections()[0]
        assert log.get(last.id).frame is not None


def test_a_log_that_was_moved_away_is_fault_until_it_is_put_back(station, plc):
    start(station, plc)
    database = station.data / "inspector.db"
    moved = database.rename(station.data / "elsewhere.db")
    faults(plc, 1)
    storage_fault(station, plc, "was moved or deleted while it was open")
    moved.rename(database)
    until(lambda: plc.status() & READY, "READY again", 20)
    passes(plc, 2)
    assert rows(station) == {(1, FAULT): "storage", (2, PASS): None}


def test_a_journal_that_was_deleted_is_fault_and_its_rows_are_saved_by_a_restart(station, plc):
    start(station, plc)
    passes(plc, 1)
    for name in ("-wal", "-shm"):
        (station.data / f"inspector.db{name}").unlink()
    faults(plc, 2)
    storage_fault(station, plc, "inspector.db-wal, which belongs to the inspection log")
    assert station.stop() == 0
    assert rows(station) == {(1, PASS): None}


def ask_quietly(station):
    try:
        return ask(station.data)["state"]
    except Exception:
        return None
