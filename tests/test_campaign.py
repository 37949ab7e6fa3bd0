"""The campaign finds what it looks for, and finds nothing in the station as it is."""

import json
import os
import struct
import subprocess
import sys

import pytest

from tests.campaign import __main__
from tests.campaign.figures import KINDS, Row
from tests.campaign.judgement import judge, judge_free

PASS, REJECT, FAULT = 1, 2, 3
DEADLINE_MS, TIMEOUT_MS = 1500, 200
MS = 1_000_000
NORMAL, OTHER, ODD = "normal-000.png", "normal-001.png", "odd-000.png"
SCORES = {NORMAL: 0.5, OTHER: 0.6, ODD: 2.0}
pytestmark = pytest.mark.alone


class Story:
    """A history written by hand; every event comes 10 ms after the one before."""

    def __init__(self):
        self.events = [{"t": 0, "is": "phase", "name": "a fault"}]
        self.rows = []
        self.shown = NORMAL

    def add(self, kind, *, after_ms=10, **what):
        self.events.append({"t": self.events[-1]["t"] + after_ms * MS, "is": kind} | what)
        return self

    def trigger(self, sequence, part, shows=NORMAL):
        self.shown = shows
        return self.add("scene", after_ms=0, shows=shows).add("trigger", sequence=sequence, part=part)

    def row(self, sequence, part, verdict, **changes):
        known = {
            "score": None if verdict == FAULT else SCORES[self.shown],
            "threshold": 1.0,
            "bundle": "b",
            "source": None if verdict == FAULT else "scene",
        }
        self.rows.append(Row(len(self.rows) + 1, sequence, part, verdict, **(known | changes)))
        return self

    def write(self, sequence, part, verdict, *, row=1, after_ms=10, received_ms=None, score=None):
        words = struct.unpack(">2H", struct.pack(">f", score or SCORES[self.shown]))
        values = [1, 57, verdict, sequence, part >> 16, part & 0xFFFF, *words, 0, 0, 7, 5, 0]
        t = self.events[-1]["t"] + after_ms * MS
        received = t if received_ms is None else received_ms * MS
        known = {"row": row} if verdict else {}
        return self.add("write", after_ms=after_ms, address=100, values=values, received=received, **known)

    def beat(self):
        now = self.events[-1]["t"] + 10 * MS
        return self.add("write", address=100, values=[2, 57], received=now)

    def coils(self, passed, rejected=False):
        now = self.events[-1]["t"] + 10 * MS
        return self.add("coils", address=10, values=[int(passed), int(rejected)], received=now)

    def answered(self, sequence, part, verdict=PASS):
        shows = ODD if verdict == REJECT else NORMAL
        return self.trigger(sequence, part, shows).row(sequence, part, verdict).write(sequence, part, verdict)

    def used(self, sequence, part, verdict=PASS):
        return self.add("used", sequence=sequence, part=part, verdict=verdict, good=verdict == PASS)

    def judged(self):
        return judge(self.events, self.rows, DEADLINE_MS, TIMEOUT_MS, SCORES)

    def violations(self):
        return {kind: count for kind, count in self.judged().total.violations.items() if count}


def test_a_pass_from_before_the_plc_lost_its_memory_may_not_stay_beside_a_heartbeat():
    story = Story().trigger(7, 1).add("forget").row(7, 1, PASS).write(7, 1, PASS).beat()
    assert not story.violations()
    story.add("nothing", after_ms=TIMEOUT_MS + 200).beat()
    assert story.violations() == {"stale": 1}


def test_a_line_that_works_has_no_violation_and_every_part_is_counted():
    story = Story().answered(65535, 1).used(65535, 1).answered(0, 2, REJECT).used(0, 2, REJECT).beat()
    story.answered(1, 3, FAULT)
    total = story.judged().total
    assert story.violations() == {}
    assert (total.triggered, total.verdicts, total.passes, total.rejects, total.faults) == (3, 3, 1, 1, 1)


@pytest.mark.parametrize(
    ("story", "found"),
    [
        pytest.param(Story().trigger(1, 1), {"unanswered": 1}, id="no answer at all"),
        pytest.param(
            Story().trigger(1, 1).trigger(2, 2).row(1, 2, FAULT).write(1, 2, FAULT),
            {"unanswered": 2, "unasked": 1},
            id="the answer bears another part",
        ),
        pytest.param(
            Story().answered(1, 1).row(2, 9, FAULT).write(2, 9, FAULT),
            {"unasked": 1},
            id="a verdict for nothing",
        ),
        pytest.param(
            Story().trigger(1, 1).write(1, 1, REJECT, row=None),
            {"verdict without row": 1},
            id="a reject that the log does not know",
        ),
        pytest.param(
            Story().trigger(1, 1).row(1, 1, PASS).write(1, 1, PASS, row=None),
            {"verdict without row": 1},
            id="a pass before its row",
        ),
        pytest.param(
            Story().trigger(1, 1).write(1, 1, FAULT, row=None),
            {"verdict without row": 1},
            id="a fault whose row never came",
        ),
        pytest.param(
            Story().trigger(1, 1).row(1, 1, FAULT).write(1, 1, PASS, row=None).used(1, 1),
            {"verdict without row": 1, "pass without inspection": 2},
            id="a pass that the log calls a fault",
        ),
        pytest.param(
            Story().trigger(1, 1, ODD).row(1, 1, PASS, threshold=3.0).write(1, 1, PASS),
            {"pass without inspection": 1},
            id="a pass for a picture that is not normal",
        ),
        pytest.param(
            Story()
            .trigger(1, 1, ODD)
            .trigger(2, 2, NORMAL)
            .row(2, 2, REJECT, score=2.0)
            .row(1, 1, FAULT)
            .write(1, 1, FAULT)
            .write(2, 2, REJECT),
            {"wrong frame": 1},
            id="the row holds the score of the part before",
        ),
        pytest.param(
            Story().trigger(1, 1, OTHER).row(1, 1, PASS).write(1, 1, PASS, score=0.5),
            {"wrong frame": 1},
            id="the wire holds the score of another normal part",
        ),
        pytest.param(
            Story().answered(1, 1, REJECT).coils(True),
            {"coil leads": 1},
            id="the pass coil is set beside a reject",
        ),
        pytest.param(
            Story().answered(1, 1).coils(True).answered(2, 2, REJECT).beat(),
            {"coil leads": 1},
            id="the pass coil stands beside a reject",
        ),
        pytest.param(
            Story().trigger(1, 1).row(1, 1, FAULT).write(1, 1, FAULT, row=None),
            {"verdict without row": 1},
            id="a fault before its row, while the log can be written",
        ),
        pytest.param(
            Story().trigger(1, 1).row(1, 1, PASS, source=None).write(1, 1, PASS),
            {"pass without inspection": 1},
            id="a pass without a frame",
        ),
        pytest.param(
            Story().trigger(1, 1).row(1, 1, PASS, threshold=0.4).write(1, 1, PASS),
            {"pass without inspection": 1},
            id="a pass above the threshold",
        ),
        pytest.param(
            Story().answered(1, 1, FAULT).row(1, 1, PASS).write(1, 1, PASS),
            {"contradicted": 1},
            id="a pass after a fault",
        ),
        pytest.param(
            Story().answered(1, 1).row(1, 1, FAULT).write(1, 1, FAULT),
            {"contradicted": 1},
            id="a fault after a pass that an honest server took",
        ),
        pytest.param(
            Story().answered(1, 1).add("gave_up", sequence=1, part=1, hurried=False),
            {"overwritten": 1},
            id="a verdict gone before the PLC saw it",
        ),
        pytest.param(
            Story().trigger(1, 1).row(1, 1, PASS).write(1, 1, PASS, after_ms=1850),
            {"late": 1},
            id="a pass after its deadline",
        ),
        pytest.param(
            Story().answered(1, 1).add("fault", kills=True).add("ended", status=-9).add("started").beat(),
            {"stale": 1},
            id="a heartbeat beside a pass from before the restart",
        ),
        pytest.param(
            Story().answered(1, 1).add("server", on=False).add("server", on=True, after_ms=3000).beat(),
            {"stale": 1},
            id="a heartbeat beside a pass from before the outage",
        ),
        pytest.param(Story().add("ended", status=1), {"died": 1}, id="the daemon ends by itself"),
        pytest.param(Story().add("ended", status=0), {"died": 1}, id="the daemon ends by itself, politely"),
        pytest.param(
            Story().add("fault", kills=False).add("ended", status=-9),
            {"died": 1},
            id="somebody else kills the daemon",
        ),
        pytest.param(
            Story().add("stopping").add("ended", status=-9), {"died": 1}, id="it has to be killed at the end"
        ),
        pytest.param(
            Story().add("fault").add("over", seen=0).add("not_recovered"),
            {"not recovered": 1},
            id="no recovery",
        ),
    ],
)
def test_each_violation_is_found_and_nothing_beside_it(story, found):
    assert story.violations() == found
    assert set(found) <= set(KINDS)


@pytest.mark.parametrize(
    "story",
    [
        pytest.param(Story().trigger(500, 1).add("forget").answered(1, 2), id="the PLC forgot that it asked"),
        pytest.param(
            Story()
            .trigger(1, 1)
            .trigger(2, 2)
            .row(1, 0, FAULT)
            .write(1, 0, FAULT)
            .row(2, 2, FAULT)
            .write(2, 2, 3),
            id="a trigger overtaken before anybody read it",
        ),
        pytest.param(Story().answered(1, 1).write(1, 1, PASS), id="the same verdict once more"),
        pytest.param(
            Story()
            .add("phase", name="log locked", log_fails=True)
            .trigger(1, 1)
            .row(1, 1, FAULT)
            .write(1, 1, FAULT, row=None),
            id="a fault before its row, while the log cannot be written",
        ),
        pytest.param(
            Story()
            .trigger(1, 1, OTHER)
            .trigger(2, 2, NORMAL)
            .row(1, 1, PASS)
            .write(1, 1, PASS)
            .row(2, 2, FAULT)
            .write(2, 2, FAULT),
            id="the next part lay before the camera already",
        ),
        pytest.param(
            Story()
            .answered(1, 1)
            .add("server", on=False)
            .add("server", on=True)
            .row(1, 1, FAULT)
            .write(1, 1, FAULT),
            id="a fault after a pass that arrived as the server went",
        ),
        pytest.param(
            Story().answered(1, 1).coils(True).beat().answered(2, 2, REJECT).coils(False, True).beat(),
            id="coils that follow",
        ),
        pytest.param(
            Story().trigger(1, 1).row(1, 1, PASS).write(1, 1, PASS, after_ms=1790),
            id="a pass that began in time and took all of its timeout",
        ),
        pytest.param(
            Story().answered(1, 1).add("server", on=False).add("server", on=True).beat(),
            id="a verdict of this moment, read back on the new connection",
        ),
        pytest.param(
            Story().add("mode", name="silent").answered(1, 1).row(1, 1, FAULT).write(1, 1, FAULT),
            id="a fault after a pass that was never confirmed",
        ),
        pytest.param(
            Story()
            .answered(1, 1)
            .add("fault", kills=True)
            .add("ended", status=-9)
            .add("started")
            .write(1, 1, 0)
            .beat(),
            id="the verdict is taken out before the heart beats",
        ),
        pytest.param(
            Story()
            .add("mode", name="late-execution")
            .trigger(1, 1)
            .row(1, 1, PASS)
            .row(1, 1, FAULT)
            .write(1, 1, FAULT, after_ms=400)
            .write(1, 1, PASS, received_ms=100),
            id="a pass that was sent before the fault and executed after it",
        ),
    ],
)
def test_what_cannot_be_helped_is_no_violation(story):
    assert story.violations() == {}


def free(story):
    return {
        kind: count for kind, count in judge_free(story.events, story.rows).total.violations.items() if count
    }


def test_a_free_running_camera_loses_no_verdict_and_no_sequence():
    def part(story, sequence, verdict=PASS):
        return story.row(sequence, 0, verdict).write(sequence, 0, verdict)

    assert free(part(part(part(Story(), 65535), 1, FAULT), 2)) == {}
    assert free(part(part(Story(), 1), 3)) == {"unasked": 1}
    assert free(part(Story(), 1).row(2, 0, FAULT)) == {"unanswered": 1}
    assert free(part(part(Story(), 1), 1)) == {}
    assert free(part(part(Story(), 1, FAULT), 1, PASS)) == {"contradicted": 1}
    assert free(part(Story(), 1).write(2, 0, PASS, row=None)) == {
        "pass without inspection": 1,
        "verdict without row": 1,
    }


def test_ends_that_the_campaign_asked_for_are_no_deaths_and_what_it_could_not_do_does_not_count():
    story = Story().add("fault", kills=True).add("ended", status=-9).add("started").add("fault", kills=False)
    story.add("undone").add("stopping").add("ended", status=0)
    assert story.violations() == {}
    assert story.judged().total.times == 1


def test_the_time_to_recover_runs_from_the_end_of_the_cause_to_the_next_finished_inspection():
    story = (
        Story()
        .answered(1, 1)
        .add("fault")
        .add("over", t=500 * MS, seen=500 * MS)
        .answered(2, 2, FAULT)
        .answered(3, 3)
    )
    assert story.judged().total.table()["recover_s"] == {"n": 1, "p50": 0.04, "max": 0.04}


def campaign(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.campaign", "--short", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_short_campaign_finds_no_violation(tmp_path):
    done = campaign("--json", str(tmp_path / "table.json"))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    table = json.loads((tmp_path / "table.json").read_text())
    total = table["total"]
    assert table["violations"] == []
    assert set(total["violations"].values()) == {0}
    assert total["passes"] > 20
    assert total["rejects"] > 20
    assert total["recover_s"]["n"] > 20
    missing = set(table["skipped"]) - {"disk full", "clock stepped"}  # root, a C compiler
    assert missing == set()


def planted(tmp_path, *arguments):
    table = tmp_path / "table.json"
    done = campaign(*arguments, "--json", str(table))
    assert done.returncode == 1, done.stdout[-5000:] + done.stderr[-5000:]
    return json.loads(table.read_text())["total"]["violations"]


def test_the_campaign_finds_planted_faults(tmp_path):
    plants = ("verdict-before-row", "pass-for-fault", "frame-of-before", "coil-first")
    options = [word for name in plants for word in ("--plant", name)]
    found = planted(tmp_path, *options, "--only", "coils: daemon kill -9", "--times", "2")
    for kind in ("verdict without row", "pass without inspection", "wrong frame", "coil leads"):
        assert found[kind] > 0, kind


def test_the_campaign_finds_triggers_that_are_dropped(tmp_path):
    options = ("--plant", "dropped-trigger", "--patience", "3")
    found = planted(tmp_path, *options, "--only", "sequence repeated", "--times", "6")
    assert found.pop("unanswered") > 0
    assert set(found.values()) == {0}


def test_a_fault_that_was_asked_for_and_cannot_be_done_is_told_and_is_no_success(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["campaign", "--short", "--only", "disk full"])
    assert __main__.main() == 2
    said = capsys.readouterr()
    assert "skipped: disk full: mounting a small file system needs root" in said.out
    assert "NOT DONE: disk full" in said.err
