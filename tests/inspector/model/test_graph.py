"""The engine on a GPU: one graph from picture to answer, which says what the plain module says on the CPU."""

import numpy as np
import pytest
import torch

from inspector.demo.parts import draw
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.engine import Engine
from inspector.model.network import METHODS, build
from inspector.model.preprocess import picture, tensor
from inspector.model.records import Preprocessing, Scoring, preset
from inspector.model.scoring import image_score, smooth
from tests.inspector.model.test_folding import lively

pytestmark = pytest.mark.gpu
# share of the map's peak; convolutions in float32 run in TF32 on a GPU, as torch has it by default
TOLERANCE = {"float32": 5e-3, "float16": 2e-2, "bfloat16": 5e-2}
PARTS = [draw(np.random.default_rng(seed))[0] for seed in range(3)]


def bundled(recipe, method: str, size: str = "small") -> Bundle:
    torch.manual_seed(0)
    architecture = preset(size, method)
    scoring = Scoring(sigma=architecture.size / 96, reduction="top", top_share=0.002)
    state = lively(build(architecture)).state_dict()
    return bundles.write(
        recipe, state, architecture, Preprocessing(size=architecture.size), scoring, provenance={}
    )


@pytest.mark.parametrize("precision", sorted(TOLERANCE))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_graph_says_what_the_plain_module_says(recipe, method: str, precision: str) -> None:
    bundle = bundled(recipe, method)
    network = build(bundle.architecture)
    network.load_state_dict(bundles.weights(bundle))
    engine = Engine(bundle, "cuda", precision)
    engine.warm_up()
    for part in PARTS:
        x = tensor(picture(part, bundle.preprocessing), bundle.preprocessing, torch.device("cpu"))
        with torch.inference_mode():
            wanted = smooth(network.eval().anomaly_map(x, bundle.scoring), bundle.scoring.sigma)
        found = engine.score(part)
        off = np.abs(found.map - wanted[0].numpy()).max() / wanted.max().item()
        assert off <= TOLERANCE[precision]
        assert found.score == pytest.approx(
            image_score(wanted, bundle.scoring).item(), rel=TOLERANCE[precision]
        )


def test_every_part_has_its_own_answer_whatever_came_between(recipe) -> None:
    engine = Engine(bundled(recipe, "restore", "tiny"), "cuda")
    engine.warm_up()
    first = [engine.score(part) for part in PARTS]
    engine.keep_warm()
    mono = engine.score(PARTS[0][:, :, 0])
    deep = engine.score(PARTS[0].astype(np.uint16) * 257)
    again = [engine.score(part) for part in PARTS]
    assert len({one.score for one in first}) == len(PARTS)
    for one, other in zip(first, again, strict=True):
        assert one.score == other.score
        np.testing.assert_array_equal(one.map, other.map)
    assert mono.score != first[0].score
    assert deep.score == pytest.approx(first[0].score, rel=1e-2)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_batch_says_of_each_part_what_the_graph_of_one_says(recipe, method: str) -> None:
    engine = Engine(bundled(recipe, method, "tiny"), "cuda", "bfloat16", together=4)
    engine.warm_up()
    parts = [*PARTS, PARTS[0][::-1]]
    for part, found in zip(parts, engine.score_together(parts), strict=True):
        alone = engine.score(part)
        assert np.abs(found.map - alone.map).max() <= TOLERANCE["bfloat16"] * alone.map.max()
        assert found.score == pytest.approx(alone.score, rel=TOLERANCE["bfloat16"])


def test_two_engines_on_one_gpu_do_not_disturb_each_other(recipe) -> None:
    one = Engine(bundled(recipe, "paper", "tiny"), "cuda", "bfloat16")
    alone = one.score(PARTS[0])
    other = Engine(bundled(recipe, "restore", "tiny"), "cuda", "float16")
    other.score(PARTS[1])
    np.testing.assert_array_equal(one.score(PARTS[0]).map, alone.map)


def test_weights_that_are_not_numbers_score_nan(recipe) -> None:
    good = bundled(recipe, "paper", "tiny")
    state = bundles.weights(good)
    state["decoder.0.weight"].fill_(torch.nan)
    broken = bundles.write(recipe, state, good.architecture, good.preprocessing, good.scoring, provenance={})
    assert np.isnan(Engine(broken, "cuda", "float16").score(PARTS[0]).score)
