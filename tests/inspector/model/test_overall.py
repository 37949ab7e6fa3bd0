"""The distance of a picture's statistics, against an independent computation in float64."""

import numpy as np
import pytest
import torch

from inspector.model.overall import COMPONENTS, Overall, statistics
from inspector.model.records import Scoring
from inspector.model.scoring import image_score, smooth

RNG = np.random.default_rng(0)


def features(count: int) -> list[torch.Tensor]:
    return [
        torch.from_numpy(RNG.normal(2, 1.5, (count, channels, side, side)).astype(np.float32))
        for channels, side in ((3, 8), (5, 4))
    ]


def test_statistics_are_means_then_deviations_of_every_channel() -> None:
    fine, coarse = features(2)
    wanted = [*fine[1].mean((1, 2)), *coarse[1].mean((1, 2))]
    wanted += [f[k].std(correction=0) for f in (fine[1], coarse[1]) for k in range(len(f))]
    np.testing.assert_allclose(statistics([fine, coarse])[1], wanted, rtol=1e-5)


@pytest.mark.parametrize("count", [200, 6])
def test_the_distance_is_that_of_a_regularised_gaussian(count: int) -> None:
    """Mahalanobis, in units in which the floor of the variance is 1; 6 parts, fewer than 16 statistics."""
    normal, odd = features(count), features(4)
    overall = Overall([3, 5])
    overall.fit(statistics(normal), 0.01)
    rows, asked = statistics(normal).double().numpy(), statistics(odd).double().numpy()
    rows, asked = ((x - rows.mean(0)) / rows.std(0) for x in (rows, asked))
    floor = 0.01 * rows.var(0).mean()
    precision = np.linalg.inv(np.cov(rows.T, bias=True) + floor * np.eye(16))
    wanted = np.sqrt(floor * np.einsum("nd,de,ne->n", asked, precision, asked))
    found = overall(odd)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_channel_that_never_moves_says_nothing() -> None:
    normal, odd = features(50), features(1)
    normal[0][:, 1] = 0
    overall = Overall([3, 5])
    overall.fit(statistics(normal), 0.01)
    odd[0][:, 1] = 0
    before = overall(odd)
    odd[0][:, 1] += 1e-4
    torch.testing.assert_close(overall(odd), before)


def test_of_many_statistics_the_quiet_directions_count_alike() -> None:
    rows = torch.from_numpy(RNG.normal(size=(COMPONENTS + 50, 2 * (COMPONENTS + 100)))).float()
    overall = Overall([COMPONENTS + 100])
    overall.fit(rows, 0.01)
    assert (overall.stretch < 0).all()
    assert overall.components.shape == (COMPONENTS, 2 * (COMPONENTS + 100))


def test_a_map_is_raised_to_the_score_of_the_whole_and_never_lowered() -> None:
    normal, odd = features(50), features(3)
    overall, scoring = Overall([3, 5]), Scoring(sigma=2.0, reduction="top", top_share=0.01)
    overall.fit(statistics(normal), 0.01)
    distances = overall(normal)
    overall.calibrate(distances, 5 + 0.5 * (distances - distances.mean()))
    whole = overall.offset + overall.gain * overall(odd)
    torch.testing.assert_close(whole, 5 + 0.5 * (overall(odd) - distances.mean()))
    error = torch.rand(3, 32, 32)
    error[1] *= 100
    raised = overall.raised(error, odd, scoring)
    torch.testing.assert_close(raised[1], error[1])
    for k in (0, 2):
        assert float(image_score(smooth(raised, 2.0), scoring)[k]) == pytest.approx(float(whole[k]), rel=1e-5)
        torch.testing.assert_close(raised[k] / raised[k].max(), error[k] / error[k].max())
    nowhere = overall.raised(torch.zeros(3, 32, 32), odd, scoring)
    assert not nowhere.any()
    odd[0][0] = torch.nan
    assert overall.raised(error, odd, scoring)[0].isnan().all()
