import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inspector.errors import ModelError
from inspector.model import bundle as bundles
from inspector.model import engine as engines
from inspector.model import packed
from inspector.model.bundle import Bundle, Threshold
from inspector.model.engine import Engine, calibrated_for
from inspector.model.fast import emulated
from inspector.model.network import METHODS, build
from inspector.model.preprocess import Image, picture, tensor
from inspector.model.records import Architecture
from inspector.model.scoring import image_score, smooth
from tests.inspector.model.test_graph import bundled

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (70, 80, 3)).astype(np.uint8)


def test_a_score_is_the_networks(stored: Bundle) -> None:
    engine = Engine(stored, "cpu")
    scored = engine.score(RGB)
    network = build(stored.architecture)
    network.load_state_dict(bundles.weights(stored))
    x = tensor(picture(RGB, stored.preprocessing), stored.preprocessing, torch.device("cpu"))
    with torch.no_grad():
        expected = smooth(network.eval().anomaly_map(x, stored.scoring), stored.scoring.sigma)
    np.testing.assert_allclose(scored.map, expected[0], rtol=1e-5)
    assert scored.map.dtype == np.float32
    assert scored.score == pytest.approx(float(image_score(expected, stored.scoring)), rel=1e-5)
    assert set(scored.stages) == {"preprocess", "model", "map"}
    assert all(ms > 0 for ms in scored.stages.values())


def test_a_score_repeats_to_the_bit_and_does_not_depend_on_what_came_before(stored: Bundle) -> None:
    engine = Engine(stored, "cpu")
    engine.warm_up()
    first = engine.score(RGB)
    engine.score(255 - RGB)
    second = engine.score(RGB)
    assert first.score == second.score == Engine(stored, "cpu").score(RGB).score
    np.testing.assert_array_equal(first.map, second.map)


def test_depth_and_mono_are_the_same_picture(stored: Bundle) -> None:
    engine = Engine(stored, "cpu")
    mono = RGB[:, :, 0]
    reference = engine.score(mono).score
    assert engine.score(np.repeat(mono[:, :, None], 3, axis=2)).score == pytest.approx(reference, rel=1e-4)
    assert engine.score(mono.astype(np.uint16) * 257).score == pytest.approx(reference, rel=1e-2)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_pictures_scored_together_get_what_they_get_alone(recipe: Path, method: str) -> None:
    engine = Engine(bundled(recipe, method, "tiny"), "cpu")
    images = [RGB, 255 - RGB, RGB[::-1]]
    for one, together in zip(map(engine.score, images), engine.score_together(images), strict=True):
        assert together.score == pytest.approx(one.score, rel=1e-4)
        np.testing.assert_allclose(together.map, one.map, atol=1e-4 * one.map.max())
    assert len({one.score for one in engine.score_together(images)}) == len(images)
    mono = [image[:, :, 0] for image in images]
    assert engine.score_together(mono)[2].score == pytest.approx(engine.score(mono[2]).score, rel=1e-4)


class Patient(Engine):
    """As on a GPU, a batch takes as long as a part."""

    def _timed(self) -> dict[int, list[float]]:
        return {size: [20.0] for size in super()._timed()}


def test_batches_are_made_where_they_were_found_to_pay(stored: Bundle) -> None:
    images = [RGB, 255 - RGB, RGB[::-1]]
    engine = Patient(stored, "cpu", together=3)
    assert len(engine.score_first(images, 1e6)) == 1, "not before it is warm"
    engine.warm_up()
    assert [one.score for one in engine.score_first(images, 1e6)] == pytest.approx(
        [engine.score(image).score for image in images[:2]], rel=1e-4
    )
    assert len(engine.score_first(images, 30.0)) == 1
    alone = Patient(stored, "cpu")
    alone.warm_up()
    assert len(alone.score_first(images, 1e6)) == 1


def test_batches_that_mix_up_their_pictures_are_not_made(
    stored: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    class Mixing(Patient):
        def _errors(self, x: torch.Tensor) -> torch.Tensor:
            return super()._errors(x).roll(len(x) // 2, 0)

    engine = Mixing(stored, "cpu", together=2)
    engine.warm_up()
    assert "at most 1 at a time: self-test of a batch of 2 on cpu" in caplog.text
    assert len(engine.score_first([RGB, 255 - RGB], 1e6)) == engine.together == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_pictures_that_are_mixed_up_are_noticed_in_any_precision(
    recipe: Path, method: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "TIMED", 1)
    engine = Engine(bundled(recipe, method, "tiny"), "cpu", precision, together=4)
    assert set(engine._timed()) == {1, 2, 4}
    errors = engine._errors
    monkeypatch.setattr(engine, "_errors", lambda x: errors(x).roll(2 if len(x) == 4 else 0, 0))
    assert set(engine._timed()) == {1, 2}


def test_a_batch_that_fails_costs_nobody_a_verdict(stored: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    class Small(Patient):
        full = False

        def _errors(self, x: torch.Tensor) -> torch.Tensor:
            if self.full and len(x) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super()._errors(x)

    engine = Small(stored, "cpu", together=2)
    engine.warm_up()
    assert len(engine.score_first([RGB, RGB], 1e6)) == 2
    engine.full = True
    assert [one.score for one in engine.score_first([RGB, RGB], 1e6)] == [engine.score(RGB).score]
    assert "one at a time from now on" in caplog.text
    engine.warm_up()
    assert "at most 1 at a time" in caplog.text
    engine.self_test()


def test_a_picture_that_does_not_fit_waits_for_its_own_turn(stored: Bundle) -> None:
    engine = Patient(stored, "cpu", together=4)
    engine.warm_up()
    good = engine.score(RGB).score
    assert [one.score for one in engine.score_first([RGB, RGB[:20], RGB], 1e6)] == [good]
    assert len(engine.score_first([RGB, RGB, RGB, RGB[:20]], 1e6)) == 2
    with pytest.raises(ModelError, match="reaches out"):
        engine.score_first([RGB[:20], RGB], 1e6)


def test_the_time_to_make_pictures_small_counts(stored: Bundle) -> None:
    class Large(Patient):
        def _small(self, image: Image) -> Image:
            time.sleep(0.2)
            return super()._small(image)

    engine = Large(stored, "cpu", together=2)
    engine.warm_up()
    assert len(engine.score_first([RGB, RGB], 700.0)) == 1
    assert len(engine.score_first([RGB, RGB], 1e6)) == 2


def test_a_cpu_that_lacks_a_precision_is_told(
    stored: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packed, "available", lambda dtype: dtype == torch.float32)
    Engine(stored, "cpu")
    assert not caplog.records
    Engine(stored, "cpu", "bfloat16")
    assert "this CPU does not compute in bfloat16" in caplog.text
    assert emulated(torch.device("cuda"), "bfloat16") == ""
    monkeypatch.setattr(packed, "available", lambda dtype: True)
    assert emulated(torch.device("cpu"), "bfloat16") == ""


def test_bfloat16_is_close(stored: Bundle) -> None:
    engine = Engine(stored, "cpu", "bfloat16")
    assert engine.precision == "bfloat16"
    scored = engine.score(RGB)
    assert scored.map.dtype == np.float32
    assert scored.score == pytest.approx(Engine(stored, "cpu").score(RGB).score, rel=0.1)


def test_nan_weights_score_nan(stored: Bundle) -> None:
    state = bundles.weights(stored)
    state["decoder.0.weight"].fill_(torch.nan)
    broken = bundles.write(
        stored.path.parent, state, stored.architecture, stored.preprocessing, stored.scoring, provenance={}
    )
    assert np.isnan(Engine(broken, "cpu").score(RGB).score)


def test_pictures_that_do_not_fit_are_refused(stored: Bundle) -> None:
    engine = Engine(stored, "cpu")
    with pytest.raises(ModelError, match="reaches out of the image"):
        engine.score(RGB[:20])
    with pytest.raises(ModelError, match="dtype float64"):
        engine.score(RGB / 255)  # type: ignore[arg-type]


def test_weights_of_another_network_are_refused(stored: Bundle) -> None:
    wider = bundles.write(
        stored.path.parent,
        bundles.weights(stored),
        Architecture(size=32, patch=8, dim=32, depth=1, heads=2, slots=10),
        stored.preprocessing,
        stored.scoring,
        provenance={},
    )
    with pytest.raises(ModelError, match="do not fit its network"):
        Engine(wider, "cpu")


@pytest.mark.parametrize(
    ("device", "word"), [("tpu", "expected"), ("cuda:99", "CUDA"), ("cuda:x", "expected")]
)
def test_devices_that_are_not_there(stored: Bundle, device: str, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        Engine(stored, device)


def test_unknown_precision(stored: Bundle) -> None:
    with pytest.raises(ModelError, match=r"'int8'.*float32, bfloat16, float16"):
        Engine(stored, "cpu", "int8")


def test_out_of_memory_is_a_model_error(stored: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(stored, "cpu")

    def exhausted(*_: object) -> None:
        torch.empty(1 << 50)

    monkeypatch.setattr(engine, "_network", exhausted)
    with pytest.raises(ModelError, match="cpu is out of memory"):
        engine.score(RGB)


def test_calibrated_for_this_device_and_precision_alone(stored: Bundle, threshold: Threshold) -> None:
    engine = Engine(stored, "cpu")
    assert "is not calibrated" in (calibrated_for(stored, engine) or "")
    assert calibrated_for(replace(stored, threshold=threshold), engine) is None
    elsewhere = replace(threshold, device="cuda:NVIDIA H100")
    assert "'cuda:NVIDIA H100'" in (calibrated_for(replace(stored, threshold=elsewhere), engine) or "")
    coarser = replace(threshold, precision="bfloat16")
    assert "bfloat16 and runs in float32" in (
        calibrated_for(replace(stored, threshold=coarser), engine) or ""
    )
