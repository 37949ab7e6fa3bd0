"""What survives: pragmas in force, kill -9, readers, a locked or full or damaged file."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inspector.audit import AuditLog
from inspector.audit.schema import REVISION
from inspector.errors import LogError
from tests.inspector.audit.conftest import passed, register

WRITER = """
import sys
from pathlib import Path
from inspector.audit import AuditLog, Evidence, Heatmap
from tests.inspector.audit.conftest import passed, register

with AuditLog.open(Path(sys.argv[1]), busy_timeout_s=20) as log:
    register(log)
    evidence = []
    for number in range(int(sys.argv[2])):
        id_ = log.commit(passed(number), evidence)
        print(id_, flush=True)
        evidence = [Evidence(id_, heatmap=Heatmap(bytes(3000), 0.5, 96, 96))]
        if number % 20 == 19:
            log.checkpoint()
"""


def writer(path: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


@pytest.mark.parametrize(("synchronous", "value"), [("FULL", 2), ("NORMAL", 1)])
def test_the_promised_pragmas_are_in_force(path: Path, synchronous: str, value: int) -> None:
    with AuditLog.open(path, synchronous) as log:  # type: ignore[arg-type]
        assert log._writer is not None
        cursor = log._writer.connection.cursor()

        def pragma(name: str) -> object:
            return cursor.execute(f"PRAGMA {name}").fetchone()[0]

        assert pragma("journal_mode") == "wal"
        assert pragma("synchronous") == value
        assert pragma("foreign_keys") == 1
        assert pragma("busy_timeout") == 1000


def test_a_pragma_that_is_not_in_force_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite ignores journal_mode = wal in memory without a word, as it does on some network disks."""
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: real(":memory:", isolation_level=None))
    with pytest.raises(LogError, match=r"journal_mode = memory where wal was asked.*network share"):
        AuditLog.open(path)


def test_every_id_reported_before_a_kill_is_in_the_file(path: Path) -> None:
    reported: list[int] = []
    rng = random.Random(5)
    for _ in range(6):
        process = writer(path, 10**6)
        assert process.stdout is not None
        reported += [int(process.stdout.readline()) for _ in range(rng.randint(1, 60))]
        time.sleep(rng.random() * 0.05)
        os.kill(process.pid, signal.SIGKILL)
        reported += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.wait()
    with AuditLog.open(path) as log:
        rows = {row.id for row in log.inspections(limit=None)}
        assert set(reported) <= rows
        assert len(reported) == len(set(reported))
        # At most the one row of each killed writer that was durable and not yet told.
        assert len(rows) - len(reported) <= 6
        assert log.get(reported[0]).heatmap is not None


def test_a_reader_in_another_process_never_blocks_the_writer(path: Path) -> None:
    process = writer(path, 150)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    with AuditLog.open(path, readonly=True) as reader:
        seen = [0]
        while process.poll() is None:
            with reader._reader.begin() as held:  # a reader that holds its snapshot across commits
                held.exec_driver_sql("SELECT count(*) FROM inspections").scalar()
                seen.append(len(reader.inspections(limit=None)))
        seen.append(len(reader.inspections(limit=None)))
    assert process.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert seen[-1] == 150


def test_two_writers_starting_together_share_a_new_file(path: Path) -> None:
    processes = [writer(path, 30) for _ in range(2)]
    ids = [int(line) for process in processes for line in process.communicate()[0].split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(ids) == list(range(1, 61))


def test_a_lock_held_by_another_process_is_named_and_survived(log: AuditLog, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with AuditLog.open(path, readonly=True) as reader:
        assert reader.inspections() == []
    with pytest.raises(LogError, match=r"is locked by another process; .*fuser"):
        log.commit(passed())
    other.execute("COMMIT")
    other.close()
    assert log.commit(passed()) == 1


def test_a_full_disk_is_named_and_survived(log: AuditLog, path: Path) -> None:
    """A file size limit fails writes as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    committed = log.commit(passed())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # the journal's blocks lie beyond
        with pytest.raises(LogError, match="space"):
            log.commit(passed(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    again = log.commit(passed(2))
    assert [row.id for row in log.inspections()] == [again, committed]


@pytest.mark.parametrize("part", ["", "-wal", "-shm"])
def test_a_log_that_was_moved_away_takes_no_rows(log: AuditLog, path: Path, part: str) -> None:
    log.commit(passed())
    file = path.with_name(path.name + part)
    moved = file.rename(path.with_name("elsewhere"))
    with pytest.raises(LogError, match="moved or deleted while it was open"):
        log.commit(passed())
    moved.rename(file)
    assert log.commit(passed()) == 2


@pytest.mark.parametrize("gone", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_a_log_whose_journal_was_deleted_takes_no_rows_and_saves_them_as_it_is_closed(
    log: AuditLog, path: Path, gone: list[str]
) -> None:
    log.commit(passed())
    for name in gone:
        path.with_name(path.name + name).unlink()
    with pytest.raises(LogError, match=f"{gone[0]}, which belongs.* was moved or deleted while it was open"):
        log.commit(passed(1))
    with pytest.raises(LogError, match="moved or deleted"):
        log.checkpoint()
    log.close()
    with AuditLog.open(path) as again:
        assert [row.id for row in again.inspections()] == [1]


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is a text file, and a long one at that. " * 100)
    for readonly in (True, False):
        with pytest.raises(LogError, match="is not a SQLite database"):
            AuditLog.open(path, readonly=readonly)


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir(parents=True)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (cake TEXT)")
    other.close()
    for readonly in (True, False):
        with pytest.raises(LogError, match=r"not an inspection log .*recipes"):
            AuditLog.open(path, readonly=readonly)


def test_a_damaged_file_is_named(path: Path) -> None:
    with AuditLog.open(path) as log:
        register(log)
        for number in range(200):
            log.commit(passed(number))
    data = bytearray(path.read_bytes())
    for page in range(8, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(LogError, match=r"is damaged .*move it away and keep it"):
        AuditLog.open(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    AuditLog.open(path).close()
    other = sqlite3.connect(path)
    other.execute("UPDATE alembic_version SET version_num = '0999'")
    other.commit()
    other.close()
    for readonly in (True, False):
        with pytest.raises(LogError, match=rf"newer version \(schema 0999, this version knows {REVISION}\)"):
            AuditLog.open(path, readonly=readonly)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LogError, match=r"folder .*file/station .* cannot be created"):
        AuditLog.open(tmp_path / "file" / "station" / "inspector.db")


def test_a_folder_in_the_place_of_the_file_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(LogError, match=r"cannot be opened; it must be a file"):
        AuditLog.open(path)


def test_a_log_that_is_not_there_is_not_made_by_looking(path: Path) -> None:
    with pytest.raises(LogError, match="there is no inspection log at"):
        AuditLog.open(path, readonly=True)
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named_and_can_be_read(path: Path) -> None:
    with AuditLog.open(path) as log:
        register(log)
        log.commit(passed())
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        with pytest.raises(LogError, match="permission"):
            AuditLog.open(path)
        with AuditLog.open(path, readonly=True) as reader:
            assert len(reader.inspections()) == 1
    finally:
        path.parent.chmod(0o755)


def test_a_copy_taken_after_close_is_complete(path: Path, tmp_path: Path) -> None:
    with AuditLog.open(path) as log:
        register(log)
        log.commit(passed())
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    with AuditLog.open(copy, readonly=True) as reader:
        assert len(reader.inspections()) == 1
