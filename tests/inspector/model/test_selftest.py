"""The picture with a known answer: what it finds, and that it finds nothing where nothing is wrong."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from inspector.errors import ModelError
from inspector.model import bundle as bundles
from inspector.model.engine import Engine
from inspector.model.network import build
from inspector.model.records import Preprocessing, Scoring
from inspector.model.selftest import GRID, picture
from tests.inspector.model.conftest import TINY


def matrices(network):
    return [p for p in network.parameters() if p.ndim in (2, 4)]


@pytest.fixture
def engine(recipe, threshold):
    """An engine that answers as it did when its threshold was made.

    Its weights are large, for a network that has learned nothing draws a grey nothing.
    """
    torch.manual_seed(0)
    network = build(TINY)
    for matrix in matrices(network):
        torch.nn.init.xavier_normal_(matrix, gain=2.0)
    where = Preprocessing(size=32, roi=(3, 5, 50, 40))
    bare = bundles.write(recipe, network.state_dict(), TINY, where, Scoring(sigma=2.0), provenance={})
    record = replace(threshold, self_test=Engine(bare, "cpu").answer())
    return Engine(bundles.with_threshold(bare, record), "cpu")


def test_the_picture_is_the_same_everywhere_and_fits_the_roi():
    drawn = picture(Preprocessing(size=64, roi=(3, 5, 50, 40)))
    assert (drawn.shape, drawn.dtype) == ((45, 53, 3), np.uint8)
    square = picture(Preprocessing(size=64))
    assert hashlib.sha256(square.tobytes()).hexdigest()[:16] == "c7ea7c417ef9631f"


def test_the_known_answer_is_given_again_by_a_fresh_engine(engine):
    assert len(engine.bundle.threshold.self_test) == 1 + GRID * GRID
    engine.self_test()
    Engine(engine.bundle, "cpu").self_test()


def test_any_weight_matrix_that_is_off_by_five_percent_shows(engine, monkeypatch):
    weights = bundles.weights(engine.bundle)
    names = [name for name, p in build(TINY).named_parameters() if p.ndim in (2, 4)]
    assert len(names) > 10
    for name in names:
        altered = weights | {name: weights[name] * 1.05}
        monkeypatch.setattr(bundles, "weights", lambda _, state=altered: state)
        with pytest.raises(ModelError, match=r"self-test of bundle \w{12} on cpu, float32, torch: .*off by"):
            Engine(engine.bundle, "cpu").self_test()
    monkeypatch.undo()
    Engine(engine.bundle, "cpu").self_test()


def test_weights_that_are_not_numbers_show_without_a_known_answer(stored, monkeypatch):
    Engine(stored, "cpu").self_test()
    weights = bundles.weights(stored)
    for name in [name for name, p in build(TINY).named_parameters() if p.ndim in (2, 4)]:
        altered = weights | {name: torch.full_like(weights[name], torch.nan)}
        monkeypatch.setattr(bundles, "weights", lambda _, state=altered: state)
        with pytest.raises(ModelError, match="is not a number"):
            Engine(stored, "cpu").self_test()


def test_an_engine_that_answers_differently_each_time_shows_without_a_known_answer(stored, monkeypatch):
    uncalibrated = Engine(stored, "cpu")
    answers = iter([(1.0, 2.0), (1.0, 2.1)])
    monkeypatch.setattr(uncalibrated, "answer", lambda: next(answers))
    with pytest.raises(ModelError, match="is off by"):
        uncalibrated.self_test()


def test_half_precision_does_not_pass_for_float32(engine):
    coarse = Engine(engine.bundle, "cpu", "bfloat16")
    coarse.precision = "float32"  # a library that computes in another precision than it says
    coarse_answer = Engine(engine.bundle, "cpu", "bfloat16").answer()
    coarse.answer = lambda: coarse_answer
    with pytest.raises(ModelError, match="is off by"):
        coarse.self_test()


def test_the_answer_of_another_precision_is_not_compared_with(engine):
    Engine(engine.bundle, "cpu", "bfloat16").self_test()
