import hashlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from inspector.errors import TrainingError
from inspector.model import bundle as bundles
from inspector.model.engine import Engine, calibrated_for
from inspector.model.network import build
from inspector.model.preprocess import Image
from inspector.model.records import Architecture, Preprocessing, Scoring
from training.calibrate import calibrate, order_statistic, parts_needed


def test_one_percent_at_95_needs_299_parts() -> None:
    assert parts_needed(0.01, 0.95) == 299
    enough = order_statistic(range(299), 0.01, 0.95)
    assert (enough.rank, enough.value, enough.missing) == (299, 298.0, 0)
    assert enough.proven_rate <= 0.01
    short = order_statistic(range(298), 0.01, 0.95)
    assert (short.rank, short.missing) == (298, 1)
    assert short.proven_rate > 0.01


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 1500), rate=st.floats(0.002, 0.5), confidence=st.floats(0.5, 0.999))
def test_the_rank_is_the_smallest_that_the_binomial_proves(n: int, rate: float, confidence: float) -> None:
    """x(k) keeps the rate iff more than n - k of n scores fall into the upper share of that size."""
    found = order_statistic(np.arange(n)[::-1].tolist(), rate, confidence)

    def proves(rank: int) -> bool:
        return bool(binom.sf(n - rank, n, rate) >= confidence)

    assert found.value == found.rank - 1
    if proves(n):
        assert proves(found.rank)
        assert found.rank == 1 or not proves(found.rank - 1)
        assert found.missing == 0
        assert found.proven_rate <= rate * (1 + 1e-9)
    else:
        assert found.rank == n
        assert found.missing == parts_needed(rate, confidence) - n > 0
        assert found.proven_rate > rate
        assert binom.sf(0, n, found.proven_rate) == pytest.approx(confidence)


def test_the_promise_holds_for_scores_of_any_distribution() -> None:
    """Of 2000 calibrations on 200 parts, 90 % keep the true rate at or below 5 %, and not many more."""
    draws = np.random.default_rng(0).exponential(size=(2000, 200))
    rates = [np.exp(-order_statistic(scores.tolist(), 0.05, 0.9).value) for scores in draws]
    assert 0.88 < np.mean(np.array(rates) <= 0.05) < 0.96


@pytest.mark.parametrize(
    ("scores", "rate", "confidence", "word"),
    [
        ([], 0.01, 0.95, "no normal parts"),
        ([1.0, float("nan")], 0.01, 0.95, "1 of 2 scores"),
        ([1.0], 0.0, 0.95, "rate is 0.0"),
        ([1.0], 0.01, 1.0, "confidence is 1.0"),
    ],
)
def test_what_cannot_be_calibrated(scores: list[float], rate: float, confidence: float, word: str) -> None:
    with pytest.raises(TrainingError, match=word):
        order_statistic(scores, rate, confidence)


TINY = Architecture(size=16, patch=8, dim=8, depth=1, heads=2, slots=4)


def engine(folder: Path, fill: float | None = None) -> Engine:
    torch.manual_seed(0)
    state = build(TINY).state_dict()
    if fill is not None:
        state["decoder.0.weight"].fill_(fill)
    bundle = bundles.write(folder, state, TINY, Preprocessing(size=16), Scoring(), provenance={})
    return Engine(bundle, "cpu")


def parts(count: int) -> list[tuple[str, Image]]:
    rng = np.random.default_rng(0)
    return [(f"{i}.png", rng.integers(0, 255, (20, 20)).astype(np.uint8)) for i in range(count)]


def test_a_threshold_carries_its_evidence(tmp_path: Path) -> None:
    judge = engine(tmp_path)
    threshold = calibrate(judge, iter(parts(30)), rate=0.2, confidence=0.9, source="here", progress=False)
    scores = [judge.score(image).score for _, image in parts(30)]
    found = order_statistic(scores, 0.2, 0.9)
    assert 1 < found.rank < 30
    assert (threshold.value, threshold.rank, threshold.n) == (found.value, found.rank, 30)
    assert (threshold.target_rate, threshold.confidence) == (0.2, 0.9)
    assert threshold.proven_rate == found.proven_rate
    assert threshold.proven
    assert (threshold.device, threshold.precision) == ("cpu", "float32")
    assert threshold.scores_sha256 == hashlib.sha256(np.array(scores, "<f8").tobytes()).hexdigest()
    assert (threshold.method, threshold.source) == ("order-statistic", "here")
    assert datetime.fromisoformat(threshold.created).utcoffset() == timedelta(0)
    child = bundles.with_threshold(judge.bundle, threshold)
    assert calibrated_for(child, judge) is None


def test_the_limits_of_a_proven_threshold_hold_at_their_confidence() -> None:
    """The true 0.95 quantile of uniform scores lies above the lower limit in 90 % of calibrations."""
    draws = np.random.default_rng(1).uniform(size=(1000, 300))
    found = [order_statistic(scores, 0.05, 0.9) for scores in draws]
    low = np.mean([one.interval[0] <= 0.95 for one in found])
    assert 0.88 < low < 0.97
    assert all(one.interval[0] < one.interval[1] == one.value for one in found)
    assert order_statistic(draws[0], 0.001, 0.9).interval == ()


def test_too_few_parts_are_said_to_be_too_few(tmp_path: Path) -> None:
    judge = engine(tmp_path)
    threshold = calibrate(judge, parts(10), rate=0.01, source="here", progress=False)
    assert threshold.self_test == judge.answer()
    assert not threshold.proven
    assert threshold.rank == 10
    assert threshold.proven_rate == pytest.approx(1 - 0.05**0.1)


def test_a_part_without_a_score_stops_the_calibration(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"0\.png scores nan"):
        calibrate(engine(tmp_path, np.nan), parts(2), source="here", progress=False)
