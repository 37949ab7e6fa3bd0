"""OpenVINO says what torch says, or is not taken."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from inspector import check
from inspector.demo.parts import draw
from inspector.errors import ModelError, SettingsError
from inspector.judges import open_engine
from inspector.model import bundle as bundles
from inspector.model import converted, fast
from inspector.model import engine as engines
from inspector.model.bundle import Bundle
from inspector.model.converted import Converted
from inspector.model.engine import Engine
from inspector.model.network import METHODS, build
from inspector.model.records import Preprocessing, Scoring, preset
from inspector.plc.registers import Status
from inspector.settings import load
from tests.inspector.model.test_folding import lively
from tests.station import camera, until, write_bundle

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")


def lively_bundle(recipe: Path, method: str) -> Bundle:
    torch.manual_seed(0)
    architecture = preset("tiny", method)
    return bundles.write(
        recipe,
        lively(build(architecture)).state_dict(),
        architecture,
        Preprocessing(size=architecture.size),
        Scoring(sigma=2.0, reduction="top", top_share=0.002),
        provenance={},
    )


@pytest.mark.parametrize("method", sorted(METHODS))
def test_it_says_what_torch_says(recipe: Path, method: str) -> None:
    bundle = lively_bundle(recipe, method)
    torch_engine = Engine(bundle, "cpu")
    engine = Engine(bundle, "cpu", runtime="openvino")
    assert isinstance(engine._network, Converted)
    images = [draw(np.random.default_rng(k))[0] for k in range(3)]
    for one, found in zip(images, engine.score_together(images), strict=True):
        wanted = torch_engine.score(one)
        np.testing.assert_allclose(found.map, wanted.map, atol=2e-5 * wanted.map.max())
        assert found.score == pytest.approx(wanted.score, rel=2e-5)
    assert len({one.score for one in engine.score_together(images)}) == len(images)
    first = engine.score(images[0])
    engine.score(images[1])
    again = engine.score(images[0])
    assert again.score == first.score
    np.testing.assert_array_equal(again.map, first.map)


def test_a_score_that_is_no_number_stays_none(recipe: Path, stored: Bundle) -> None:
    state = bundles.weights(stored)
    state["encoder.pos_embed"].fill_(float("nan"))
    broken = bundles.write(
        recipe, state, stored.architecture, stored.preprocessing, stored.scoring, provenance={}
    )
    image = np.zeros((64, 64, 3), np.uint8)
    assert np.isnan(Engine(broken, "cpu", runtime="openvino").score(image).score)


def test_a_map_that_moves_is_not_taken(stored: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    network = fast.plain_network(stored)

    def off(*_: object):
        return lambda x: 1.01 * fast.error_of(network, x, stored, "float32")

    monkeypatch.setattr(fast, "Converted", off)
    with pytest.raises(ModelError, match=r"moves by 0\.01 of its peak, expected at most 0\.001.*'torch'"):
        Engine(stored, "cpu", runtime="openvino")


def test_what_the_converter_says_is_told(stored: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = bundles.weights(stored)
    monkeypatch.setattr(bundles, "weights", lambda _: weights)  # the file is altered for the converter alone
    (stored.path / bundles.WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(ModelError, match=rf"runtime 'openvino': bundle .*{stored.id}.*is not intact"):
        Engine(stored, "cpu", runtime="openvino")


def test_a_conversion_that_does_not_end_is_ended(stored: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it has used: on a busy machine the nightly one waits for hours."""
    monkeypatch.setattr(converted, "PROCESSOR_S", 1)  # its imports alone take longer
    with pytest.raises(ModelError, match=r"within 1 s of processor time; set engine\.runtime to 'torch'"):
        Engine(stored, "cpu", runtime="openvino")


def test_a_missing_package_is_named(stored: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install openvino, or take 'torch'"):
        Engine(stored, "cpu", runtime="openvino")


def test_it_is_for_the_cpu(stored: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "resolve", lambda _: torch.device("cuda"))
    monkeypatch.setattr(engines, "describe", lambda _: "cuda:NVIDIA H100")
    with pytest.raises(ModelError, match=r"'openvino'.*on cuda:NVIDIA H100 in float32; set device to"):
        Engine(stored, "auto", runtime="openvino")


def test_an_unknown_runtime_is_refused(stored: Bundle) -> None:
    with pytest.raises(ModelError, match=r"'onnx'.*torch, openvino"):
        Engine(stored, "cpu", runtime="onnx")


def test_the_daemon_judges_with_it_by_the_threshold_of_torch(quick_station, plc) -> None:
    models = quick_station.data / "models" / "part"
    answer = Engine(bundles.active(models), "cpu").answer()
    bundle = write_bundle(models, self_test=answer)
    quick_station.write(camera(), more='runtime = "openvino"')
    engine = open_engine(bundle, load(quick_station.config).engine)
    assert isinstance(engine._network, Converted)
    engine.self_test()
    quick_station.start()
    until(lambda: plc.status() & Status.READY, "READY", 120)
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    assert plc.verdicts() == [(1, 1)]


def test_settings_refuse_it_where_it_is_not_for(quick_station) -> None:
    for other in ('precision = "bfloat16"', 'device = "cuda"'):
        quick_station.write(camera(), more=f'runtime = "openvino"\n{other}')
        with pytest.raises(SettingsError, match=r'engine.*runtime = "openvino" needs the CPU'):
            load(quick_station.config)


def test_it_tells_its_maker_nothing(tmp_path: Path) -> None:
    code = (
        "import psutil; from inspector.model.converted import library; library().Core()\n"
        "assert psutil.Process().children() == []"
    )
    home = os.environ | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert list(tmp_path.iterdir()) == []


def test_who_ends_waits_for_no_conversion(stored: Bundle) -> None:
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(Engine, stored, "cpu", runtime="openvino")
        until(lambda: converted._running, "a conversion")
        (process,) = converted._running
        converted.give_up()
        with pytest.raises(ModelError, match="'openvino': exit status -9"):
            coming.result(20)
    assert not psutil.pid_exists(process.pid)
    assert not converted._running


def test_the_check_of_a_station_names_a_missing_package(quick_station, monkeypatch) -> None:
    quick_station.write(camera(), more='runtime = "openvino"')
    settings = load(quick_station.config)
    assert list(check.check_station(settings))
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"engine\.runtime = 'openvino': not installed"):
        list(check.check_station(settings))


def test_a_network_that_cannot_be_converted_is_named(stored: Bundle, tmp_path: Path) -> None:
    code = """
import sys, torch
from inspector.model import convert

class Odd(torch.nn.Module):
    def __init__(self, bundle):
        super().__init__()

    def forward(self, x):
        return torch.linalg.eigvals(x[:, 0]).abs()

convert._ErrorMap = Odd
sys.exit(convert.main())
"""
    command = [sys.executable, "-c", code, str(stored.path), str(tmp_path / "network.xml"), "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"cannot convert the network of bundle {stored.id[:12]} (" in last
    assert "eigvals" in last
    assert last.endswith("set engine.runtime to 'torch'")
