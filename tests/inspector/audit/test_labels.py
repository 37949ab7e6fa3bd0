"""What people say of parts: append-only, the latest holds, and the daemon's decisions come first."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from inspector.audit import AuditLog, Evidence, Measures, StoredFrame
from inspector.audit.labels import add_label
from inspector.errors import LogError
from tests.inspector.audit.conftest import NOON, passed, register

FRAME = StoredFrame("2026-05-09/top/000000001_120000000.png", "cd" * 32, 1234, 40, 30, 3, 8)
LABELLER = """
import sys
from pathlib import Path
from inspector.audit.labels import add_label

for number in range(int(sys.argv[2])):
    add_label(Path(sys.argv[1]), 1 + number % 3, "defect" if number % 2 else "normal", by="somebody")
"""


def test_the_latest_label_holds_and_the_others_stay(log: AuditLog, path: Path) -> None:
    id_ = log.commit(passed())
    add_label(path, id_, "defect", by="anna", note="scratch")
    second = add_label(path, id_, "normal")
    record = log.get(id_)
    assert record.inspection.label == "normal"
    assert [(one.label, one.by, one.note) for one in record.labels] == [
        ("normal", None, None),
        ("defect", "anna", "scratch"),
    ]
    assert record.labels[0] == second
    assert log.labels() == [second]
    assert len(log.labels(id_)) == 2


def test_parts_are_found_by_their_latest_label(log: AuditLog, path: Path) -> None:
    ids = [log.commit(passed(number)) for number in range(4)]
    log.add_evidence([Evidence(ids[1], FRAME, measures=Measures(0.5, 0.01))])
    add_label(path, ids[0], "normal")
    add_label(path, ids[0], "defect")
    add_label(path, ids[1], "normal")
    assert [row.id for row in log.inspections(label="defect")] == [ids[0]]
    assert [row.id for row in log.inspections(label="normal")] == [ids[1]]
    assert [row.label for row in log.inspections()] == [None, None, "normal", "defect"]
    assert [part.inspection.id for part in log.parts(labelled=True)] == ids[:2]
    assert [part.inspection.id for part in log.parts(recipe="other")] == []
    (part,) = log.parts(label="normal")
    assert (part.frame, part.measures, part.inspection.label) == (FRAME, Measures(0.5, 0.01), "normal")
    (framed,) = log.parts(framed=True)
    assert framed == replace(part, inspection=replace(part.inspection, stages=None)), "the one with a frame"
    before, *_ = log.parts(recipe="demo", verdict=1, until=NOON.replace(minute=1))
    assert (before.frame, before.measures) == (None, None)


def test_a_label_of_what_is_not_there_is_refused(log: AuditLog, path: Path) -> None:
    with pytest.raises(LogError, match="it has no inspections yet"):
        add_label(path, 1, "normal")
    log.commit(passed())
    with pytest.raises(LogError, match=r"no inspection 2 in .*the newest is 1"):
        add_label(path, 2, "normal")
    with pytest.raises(LogError, match="there is no inspection log"):
        add_label(path.with_name("other.db"), 1, "normal")
    with pytest.raises(LogError, match="label"):
        add_label(path, 1, "perhaps")  # type: ignore[arg-type]
    assert log.labels() == []


@pytest.mark.parametrize("change", ["UPDATE labels SET label = 'defect'", "DELETE FROM labels"])
def test_no_label_is_taken_back(log: AuditLog, path: Path, change: str) -> None:
    add_label(path, log.commit(passed()), "normal")
    other = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(change)
    other.close()
    assert [one.label for one in log.labels()] == ["normal"]


def test_labels_beside_a_daemon_that_writes_delay_and_fail_no_decision(path: Path) -> None:
    """The daemon waits 0.2 s for others at most; a person's label waits for the daemon."""
    count = 20
    with AuditLog.open(path, busy_timeout_s=0.2) as log:
        register(log)
        for number in range(3):
            log.commit(passed(number))
        command = [sys.executable, "-c", LABELLER, str(path), str(count)]
        labellers = [subprocess.Popen(command, cwd=Path(__file__).parents[3]) for _ in range(2)]
        committed = 3
        while any(labeller.poll() is None for labeller in labellers):
            log.commit(passed(committed))  # raises where it would have to wait longer
            committed += 1
            if committed % 50 == 0:
                log.checkpoint()
            time.sleep(0.005)
        assert [labeller.returncode for labeller in labellers] == [0, 0]
        assert len(log.inspections(limit=None)) == committed > 20
        assert sum(len(log.labels(id_)) for id_ in (1, 2, 3)) == 2 * count


def test_a_label_waits_for_a_log_that_is_locked_for_a_moment(log: AuditLog, path: Path) -> None:
    log.commit(passed())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    labeller = subprocess.Popen(
        [sys.executable, "-c", LABELLER, str(path), "1"], cwd=Path(__file__).parents[3]
    )
    with pytest.raises(subprocess.TimeoutExpired):
        labeller.wait(4)
    other.execute("COMMIT")
    other.close()
    assert labeller.wait(30) == 0
    assert [one.by for one in log.labels()] == ["somebody"]


def test_a_label_leaves_the_journal_of_a_running_daemon_as_it_is(log: AuditLog, path: Path) -> None:
    log.commit(passed())
    journal = path.with_name("inspector.db-wal")
    before = journal.stat().st_size
    add_label(path, 1, "normal")
    assert journal.stat().st_size == before > 0
