"""`inspector bench`: the station with a stub, and the engine with random weights."""

import json

import cv2
import pytest
from typer.testing import CliRunner

from inspector.bench import floor as floors
from inspector.bench.engine import untrained
from inspector.bench.floor import work
from inspector.bench.timing import in_turns
from inspector.cli import app
from inspector.errors import InspectorError, SettingsError
from inspector.model.network import build


def bench(*options: str):
    result = CliRunner().invoke(app, ["bench", *options])
    if isinstance(result.exception, InspectorError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_station_of_two_cameras(tmp_path):
    out, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    options = ["--stub", "--parts", "40", "--fps", "20", "--size", "64", "--cameras", "2"]
    printed = bench(*options, "--json", str(out), "--plot", str(plot))
    figures = json.loads(out.read_text())
    assert (figures["verdicts"], figures["faults"], figures["cameras"]) == (40, 0, 2)
    stages = figures["stages_ms"]
    assert list(stages) == [
        "wait", "preprocess", "model", "map", "commit", "modbus", "total", "overhead"
    ]  # fmt: skip
    assert stages["commit"]["p50"] > 0
    for values in (*stages.values(), figures["disk_ms"]):
        assert 0 <= values["p50"] <= values["p99"] <= values["max"]
    assert "overhead" in printed
    assert "fdatasync" in printed
    assert cv2.imread(str(plot)) is not None


def test_the_engine_beside_its_floor(tmp_path):
    out, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    options = ["--method", "paper", "--preset", "tiny", "--parts", "10", "--fps", "50"]
    printed = bench(*options, "--json", str(out), "--plot", str(plot))
    figures = json.loads(out.read_text())
    # 3 · 128² · 128 · 2 of the patches alone
    assert figures["floor"]["gflop"] > 2e-9 * 64 * 768 * 128
    assert figures["ratios"]["to_floor"] == pytest.approx(
        figures["in_turns_ms"]["engine"]["p50"] / figures["floor"]["ms"]
    )
    assert set(figures["batches_ms_a_part"]) == {"1", "2", "4"}
    assert set(figures["flat_out_ms"]) == {"preprocess", "model", "map"}
    assert figures["cadence_ms"]["fps"] == 50
    assert min(figures["memory_mib"]["with_the_engine"], figures["memory_mib"]["before"]) > 50  # torch alone
    assert "floor" in printed
    assert cv2.imread(str(plot)) is not None


def test_the_engine_and_the_station_with_it_in_one_run(tmp_path):
    out = tmp_path / "figures.json"
    options = ["--method", "paper", "--preset", "tiny", "--parts", "10", "--fps", "4", "--size", "64"]
    printed = bench(*options, "--whole", "--json", str(out))
    figures = json.loads(out.read_text())
    station = figures["station"]
    assert (station["verdicts"], station["scorer"]) == (10, figures["bundle"])
    assert station["stages_ms"]["model"]["p50"] > 1
    for name in ("to floor", "faster than plain eager float32", "overhead"):
        assert name in printed


@pytest.mark.parametrize("method", ["paper", "feature"])
def test_the_floor_counts_attention_and_distances_too(tmp_path, monkeypatch, method):
    """torch's own counter knows neither on a CPU."""
    bundle = untrained(tmp_path, method, "tiny")
    a = bundle.architecture
    counted = work(bundle, "float32").flops
    monkeypatch.setattr(floors, "UNCOUNTED", {})
    less = work(bundle, "float32").flops
    if method == "paper":
        tokens = (a.size // a.patch) ** 2 + 1
        missing = a.depth * 4 * tokens**2 * a.dim
    else:
        banks = build(a).banks
        missing = sum(2 * bank.side**2 * bank.slots.numel() for bank in banks)
    assert counted - less == missing > 0


def test_a_model_asks_for_a_station_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError):
        bench("--engine")


def test_runs_take_turns_and_the_first_of_a_block_does_not_count():
    order: list[str] = []
    times = in_turns({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3)
    assert {name: len(one.clock) for name, one in times.items()} == {"a": 9, "b": 9}
    assert len(order) == 24
    for block in range(6):
        assert len(set(order[4 * block : 4 * block + 4])) == 1
