import numpy as np
import pytest
from scipy.stats import genpareto

from inspector.errors import TrainingError
from training import tail
from training.calibrate import extrapolated, order_statistic


def draw(shape: float, n: int, seed: int = 0) -> list[float]:
    scores: list[float] = genpareto.rvs(shape, scale=2.0, size=n, random_state=seed).tolist()
    return scores


@pytest.mark.parametrize("shape", [0.0, 0.3])
def test_a_tail_that_is_one_is_found_again(shape: float) -> None:
    """A generalised Pareto tail keeps its shape above any threshold; its scale grows by shape x threshold."""
    found = tail.fit(draw(shape, 20_000), 0.005, 0.95)
    true = genpareto.isf(0.005, shape, scale=2.0)
    assert found.shape == pytest.approx(shape, abs=0.08)
    assert found.scale == pytest.approx(2.0 + shape * found.start, rel=0.1)
    assert found.interval[0] < true < found.interval[1]
    assert found.estimate == pytest.approx(true, rel=0.1)
    assert found.exceeded(np.array(found.estimate)) == pytest.approx(0.005, rel=0.02)


def test_the_likelihood_is_that_of_scipy() -> None:
    above, scales = np.array([0.2, 1.0, 3.0]), np.linspace(0.5, 2.0, len(tail.SHAPES))
    expected = [
        genpareto.logpdf(above, shape, scale=scale).sum()
        for shape, scale in zip(tail.SHAPES, scales, strict=True)
    ]
    np.testing.assert_allclose(tail._log_likelihood(above, scales), expected)


def test_the_limits_are_where_the_likelihood_has_fallen_by_half_a_chi_square() -> None:
    """2.7055: 90 % of chi-square with one degree of freedom lie below it, which leaves 5 % on each side."""
    scores = draw(0.2, 300)
    found = tail.fit(scores, 0.005, 0.95)
    above = np.sort(scores)[-30:] - found.start

    def likelihood(score: float) -> float:
        growth = np.array([genpareto.isf(0.05, shape) for shape in tail.SHAPES])
        return max(
            genpareto.logpdf(above, shape, scale=(score - found.start) / unit).sum()
            for shape, unit in zip(tail.SHAPES, growth, strict=True)
        )

    for limit in found.interval:
        assert likelihood(found.estimate) - likelihood(limit) == pytest.approx(2.7055 / 2, abs=0.01)


def test_an_extrapolated_threshold_still_says_what_is_proven() -> None:
    scores = draw(0.1, 150)
    found, ranked = extrapolated(scores, 0.005, 0.95), order_statistic(scores, 0.005, 0.95)
    assert found.value == found.interval[1] > ranked.value == max(scores)
    assert found.rank == 150
    assert found.proven_rate == ranked.proven_rate
    assert found.missing == ranked.missing == 448


@pytest.mark.parametrize(
    ("scores", "rate", "words"),
    [
        (draw(0.0, 99)[:94], 0.005, "expected at least 100"),
        ([1.0] * 200, 0.005, "all alike"),
        (draw(0.0, 200), 0.2, "expected less than 0.1"),
    ],
)
def test_what_has_no_tail(scores: list[float], rate: float, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        tail.fit(scores, rate, 0.95)
