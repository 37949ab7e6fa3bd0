from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from inspector.audit import AuditLog, BundleRecord, Evidence, Heatmap, StoredFrame
from inspector.errors import LogError
from tests.inspector.audit.conftest import BUNDLE, NOON, fault, passed, register

FRAME = StoredFrame("2026-05-09/top/000000001_120000000.png", "cd" * 32, 1234, 40, 30, 3, 8)
HEATMAP = Heatmap(b"png", 0.5, 96, 96, region=(10, 20, 30, 40))


def test_a_decision_comes_back_as_it_went_in(log: AuditLog) -> None:
    given = passed(7)
    record = log.get(log.commit(given))
    assert {name: getattr(record.inspection, name) for name in given.__dataclass_fields__} == {
        name: getattr(given, name) for name in given.__dataclass_fields__
    }
    assert record.bundle is not None
    assert record.bundle.architecture == {"dim": 64}
    assert record.frame is None
    assert record.heatmap is None


def test_times_are_kept_in_utc_whatever_their_zone(log: AuditLog, path: Path) -> None:
    local = NOON.astimezone(timezone(timedelta(hours=2)))
    id_ = log.commit(passed(time=local))
    assert log.get(id_).inspection.time == NOON
    assert log.get(id_).inspection.time.utcoffset() == timedelta(0)


def test_a_time_without_zone_is_refused(log: AuditLog) -> None:
    with pytest.raises(Exception, match="time without a zone"):
        log.commit(passed(time=datetime(2026, 5, 9)))  # noqa: DTZ001 — the point of the test
    assert log.commit(passed()) == 1


def test_evidence_rides_with_the_next_decision(log: AuditLog) -> None:
    first = log.commit(passed(1))
    second = log.commit(passed(2), [Evidence(first, FRAME, HEATMAP)])
    log.add_evidence([Evidence(second, heatmap=HEATMAP)])
    assert (log.get(first).frame, log.get(first).heatmap) == (FRAME, HEATMAP)
    assert (log.get(second).frame, log.get(second).heatmap) == (None, HEATMAP)


def test_evidence_given_twice_costs_nothing(log: AuditLog) -> None:
    first = log.commit(passed(1))
    evidence = [Evidence(first, FRAME, HEATMAP)]
    log.add_evidence(evidence)
    log.commit(passed(2), evidence)
    assert log.get(first).frame == FRAME


def test_evidence_of_an_unknown_inspection_takes_the_decision_back(log: AuditLog) -> None:
    with pytest.raises(LogError, match="FOREIGN KEY"):
        log.commit(passed(1), [Evidence(99, FRAME)])
    assert log.inspections() == []
    assert log.commit(passed(1)) > 0


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"verdict": 0}, "verdict"),
        ({"reason": "late"}, "reason"),
        ({"verdict": 3}, "reason"),
        ({"score": None}, "judged"),
        ({"score": float("nan")}, "judged"),
        ({"threshold": None}, "judged"),
        ({"bundle": None}, "judged"),
        ({"score": 0.26}, "passed"),
        ({"bundle": "no such bundle"}, "FOREIGN KEY"),
    ],
)
def test_a_pass_without_a_finished_inspection_is_refused(
    log: AuditLog, changes: dict[str, object], constraint: str
) -> None:
    with pytest.raises(LogError, match=constraint):
        log.commit(passed(1, **changes))
    assert log.inspections() == []


def test_ids_are_never_used_twice(log: AuditLog, path: Path) -> None:
    import sqlite3

    last = [log.commit(passed(n)) for n in range(3)][-1]
    other = sqlite3.connect(path)
    other.execute("DELETE FROM inspections")
    other.commit()
    other.close()
    assert log.commit(passed(9)) == last + 1


def test_the_last_sequence_is_where_a_restart_goes_on(path: Path) -> None:
    with AuditLog.open(path) as log:
        register(log)
        assert log.last_sequence("top") is None
        log.commit(passed(1, sequence=65535))
        log.commit(passed(2, sequence=0))
        log.commit(passed(3, sequence=17, camera="side"))
        log.commit(fault(4, sequence=None))
    with AuditLog.open(path) as log:
        assert log.last_sequence("top") == 0
        assert log.last_sequence("side") == 17


def test_inspections_are_found_by_every_condition(log: AuditLog) -> None:
    log.commit(passed(1))
    log.commit(passed(2, camera="side", score=0.4, verdict=2))
    log.commit(fault(3))
    log.commit(passed(4, recipe="other", score=0.2))

    def found(**conditions: object) -> list[int]:
        return [row.id for row in log.inspections(**conditions)]  # type: ignore[arg-type]

    assert found() == [4, 3, 2, 1]
    assert found(limit=2) == [4, 3]
    assert found(since=NOON + timedelta(seconds=2)) == [4, 3, 2]
    assert found(until=NOON + timedelta(seconds=2)) == [1]
    assert found(verdict=2) == [2]
    assert found(camera="top") == [4, 3, 1]
    assert found(recipe="other") == [4]
    assert found(reason="camera_down") == [3]
    assert found(part_id=48001) == [1]
    assert found(min_score=0.2) == [4, 2]
    assert found(camera="top", verdict=1, min_score=0.15) == [4]


def test_an_unknown_id_says_what_there_is(log: AuditLog) -> None:
    with pytest.raises(LogError, match="no inspections yet"):
        log.get(5)
    log.commit(passed())
    with pytest.raises(LogError, match=r"no inspection 5 in .*the newest is 1"):
        log.get(5)


def test_events_come_back_newest_first(log: AuditLog) -> None:
    log.add_event("start", "inspector started", details={"version": "1"})
    log.add_event("camera", "camera lost", severity="error", camera="top")
    newest, oldest = log.events()
    assert (newest.kind, newest.severity, newest.camera) == ("camera", "error", "top")
    assert oldest.details == {"version": "1"}
    assert oldest.time <= newest.time
    assert [event.kind for event in log.events(severity="error")] == ["camera"]
    assert [event.kind for event in log.events(kind="start")] == ["start"]
    assert log.events(since=newest.time + timedelta(seconds=1)) == []


def test_a_known_bundle_stays_as_it_is(log: AuditLog) -> None:
    log.register_bundle(BundleRecord(id=BUNDLE, recipe="changed", architecture={}))
    bundle = log.get(log.commit(passed())).bundle
    assert bundle is not None
    assert bundle.recipe == "demo"
    assert bundle.first_used is not None


def test_two_threads_share_the_log(log: AuditLog) -> None:
    ids: dict[str, list[int]] = {"top": [], "side": []}

    def work(camera: str) -> None:
        for number in range(100):
            evidence = [Evidence(ids[camera][-1], heatmap=HEATMAP)] if ids[camera] else []
            ids[camera].append(log.commit(passed(number, camera=camera), evidence))

    threads = [threading.Thread(target=work, args=(camera,)) for camera in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids["top"] + ids["side"]) == list(range(1, 201))
    for camera, given in ids.items():
        rows = log.inspections(camera=camera, limit=None)
        assert [row.id for row in rows] == given[::-1]
        assert [row.sequence for row in rows] == list(range(100))[::-1]


def test_a_closed_log_writes_nothing(path: Path) -> None:
    log = AuditLog.open(path)
    log.close()
    log.close()
    with pytest.raises(LogError, match="reading only, or closed"):
        log.add_event("start", "too late")


def test_a_readonly_log_writes_nothing(log: AuditLog, path: Path) -> None:
    with AuditLog.open(path, readonly=True) as reader, pytest.raises(LogError, match="reading only"):
        reader.commit(passed())


def test_close_leaves_one_file(path: Path) -> None:
    with AuditLog.open(path) as log:
        register(log)
        log.commit(passed())
        assert path.with_name("inspector.db-wal").exists()
    assert [file.name for file in path.parent.iterdir()] == ["inspector.db"]


def test_a_checkpoint_lets_the_journal_start_over(log: AuditLog, path: Path) -> None:
    journal = path.with_name("inspector.db-wal")
    for round_ in range(5):
        for number in range(20):
            log.commit(passed(number))
        log.checkpoint()
        if round_ == 0:
            size = journal.stat().st_size
    assert journal.stat().st_size <= 2 * size
    assert len(log.inspections(limit=None)) == 100
