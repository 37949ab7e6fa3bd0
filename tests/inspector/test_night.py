"""A night on a station that inspects: retrained, promoted and taken by the daemon with nobody's help."""

from itertools import groupby

import pytest

from inspector.inquiry import ask
from inspector.model import bundle as bundles
from inspector.plc.registers import Status
from tests.inspector.nightly_station import draw, inspect, prepare
from tests.station import camera, until

PASS, REJECT, FAULT = 1, 2, 3
DEADLINE_MS = 20_000  # a busy test machine is no late model
pytestmark = pytest.mark.alone


@pytest.fixture
def station(tmp_path, plc):
    one = prepare(tmp_path, plc.port, epochs=1)
    inspect(one, 160, 3)
    yield one
    if one.daemon is not None and one.daemon.poll() is None:
        one.kill()


@pytest.mark.timeout(600)
def test_a_better_candidate_takes_over_at_ten_parts_a_second_without_a_gap(station, plc):
    models = station.data / "models" / "part"
    before = bundles.active(models).id
    draw(station.root / "line", 60, 9)
    line = camera(
        trigger="camera", deadline_ms=DEADLINE_MS, ring_slots=64, folder={"fps": 10.0, "path": "line"}
    )
    tables = station.config.read_text()
    station.config.write_text(
        tables.replace(tables[tables.index("[[camera]]") : tables.index("[recipe.part]")], line + "\n")
    )
    with station.log() as log:
        known = log.inspections()[0].id
    station.start()
    until(lambda: plc.status() & Status.READY, "READY")
    done = station.command("retrain", "--epochs", "15", "--seed", "2", patience_s=500)  # the daemon first
    assert done.returncode == 0, done.stdout + done.stderr
    after = bundles.active(models).id
    assert after != before
    until(lambda: ask(station.data)["cameras"][0]["model"]["bundle"] == after, "the swap", 60)
    seen = len(plc.verdicts())
    until(lambda: len(plc.verdicts()) > seen + 5, "verdicts of the new bundle", 60)
    assert station.stop() == 0
    with station.log() as log:
        rows = [row for row in reversed(log.inspections(limit=None)) if row.id > known]
        kinds = [event.kind for event in log.events(limit=None)]
    assert [bundle for bundle, _ in groupby(rows, key=lambda row: row.bundle)] == [before, after]
    numbers = [row.sequence for row in rows]
    assert numbers == list(range(numbers[0], numbers[0] + len(rows))), "no part left out"
    assert {row.reason for row in rows} == {None}
    assert max(row.latency_ms for row in rows) < DEADLINE_MS
    assert plc.verdicts() == [(row.sequence, row.verdict) for row in rows]
    assert kinds.index("model_swapped") < kinds.index("retrain_promoted"), "newest first"
