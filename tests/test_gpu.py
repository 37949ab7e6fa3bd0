"""The script that measures on a GPU runs to its end: tried out on the CPU, with small networks."""

import json

import pytest

from inspector.bench import engine as engines
from tests import gpu


def test_the_whole_plan_is_gone_through_and_what_was_missed_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "IDLE_S", 0.1)
    monkeypatch.setattr(engines, "IDLES", 1)
    out = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--preset", "tiny", "--rounds", "1", "--parts", "3", "--minutes", "0.02"]
    status = gpu.main([*options, "--fps", "10", "--json", str(out)])
    figures = json.loads(out.read_text())
    assert set(figures["engine"]) == {"paper float32", "restore float32", "feature float32"}
    assert figures["tests"] == 0  # skipped without a GPU, but found
    for line in figures["line"].values():
        assert (line["verdicts"], line["faults"]) == (12, 0)
    assert status == (1 if figures["missed"] else 0)
    assert all(line in capsys.readouterr().out for line in figures["missed"][:1])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"to_floor": 3.1}, "3.10 times the floor"),
        ({"faster_than plain eager float32": 3.9}, "3.90 times faster"),
        ({"faster_than anomalib PatchCore": 0.9}, "slower than anomalib PatchCore (0.90)"),
    ],
)
def test_marks_are_told_when_they_are_missed(change, word, monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: object())
    good = {"to_floor": 2.0, "faster_than plain eager float32": 5.0, "faster_than anomalib PatchCore": 2.0}

    def figures(ratios):
        one = {"in_turns_ms": {"engine": {"p50": 5.0, "p99": 5.5}}, "ratios": ratios, "precision": "bfloat16"}
        line = {"faults": 0, "stages_ms": {"total": {"max": 12.0}}}
        return {"engine": {"paper bfloat16": one}, "line": {1: line}, "tests": 0}

    assert gpu.missed(figures(good), 50) == []
    assert [word in line for line in gpu.missed(figures(good | change), 50)] == [True]
    late = figures(good)
    slow = {"faults": 0, "stages_ms": {"total": {"max": 21.0}}}
    late["line"] = {1: slow, 4: slow}
    assert gpu.missed(late, 50) == ["the line, cameras: 1: 0 faults, slowest part 21.0 ms at 50 parts/s"]
