import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from inspector.errors import ModelError
from inspector.model.records import Scoring
from inspector.model.scoring import image_score, l2_map, picture_error, smooth, ssim_map


def pictures(size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.rand(2, 2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x, y


def expected_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One channel, the definition of Wang et al. 2004, with an explicit 11 x 11 window, in float64."""
    i = np.arange(-5, 6)
    window = np.exp(-(i[:, None] ** 2 + i**2) / (2 * 1.5**2))
    window /= window.sum()
    px, py = np.pad(x, 5, mode="reflect"), np.pad(y, 5, mode="reflect")
    out = np.empty_like(x)
    for r, c in np.ndindex(*x.shape):
        a, b = px[r : r + 11, c : c + 11], py[r : r + 11, c : c + 11]
        ma, mb = (window * a).sum(), (window * b).sum()
        va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
        cov = (window * (a - ma) * (b - mb)).sum()
        c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
        out[r, c] = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return out


def test_ssim_against_its_definition() -> None:
    x, y = pictures(24)
    y = 0.7 * x + 0.3 * y
    got = ssim_map(x, y)
    for b, c in np.ndindex(2, 3):
        want = expected_ssim(x[b, c].double().numpy(), y[b, c].double().numpy())
        np.testing.assert_allclose(got[b, c], want, atol=1e-5)


def test_equal_pictures_have_no_error() -> None:
    x, _ = pictures()
    flat = torch.full_like(x, 0.25)
    for picture in (x, flat):
        assert picture_error(picture, picture, Scoring()).abs().max() < 1e-4


def test_l2_sums_the_channels_and_weights_apply() -> None:
    x, y = pictures()
    l2 = ((x.double().numpy() - y.double().numpy()) ** 2).sum(1)
    np.testing.assert_allclose(l2_map(x, y), l2, atol=1e-5)
    ssim = (1 - ssim_map(x, y)).mean(1)
    got = picture_error(x, y, Scoring(l2_weight=0.5, ssim_weight=2.0))
    np.testing.assert_allclose(got, 0.5 * l2 + 2 * ssim.numpy(), atol=1e-4)


@pytest.mark.parametrize("sigma", [0.8, 2.0, 4.0, 9.0])
def test_smoothing_is_scipys(sigma: float) -> None:
    error = torch.rand(2, 48, 48)
    want = np.stack([gaussian_filter(e, sigma, mode="mirror") for e in error.double().numpy()])
    np.testing.assert_allclose(smooth(error, sigma), want, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(384, 384), (256, 48), (97, 60), (7, 12)])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_one_map_alone_is_smoothed_in_bands_and_comes_out_the_same(
    height: int, width: int, sigma: float
) -> None:
    error = torch.rand(1, height, width)
    want = gaussian_filter(error[0].double().numpy(), sigma, mode="mirror")
    got = smooth(error, sigma)
    assert got.is_contiguous()
    np.testing.assert_allclose(got[0], want, atol=1e-5)
    turned = error.transpose(1, 2).contiguous().transpose(1, 2)  # the same map, stored by columns
    torch.testing.assert_close(smooth(turned, sigma), got)


def test_no_border_artefact() -> None:
    """An even error stays even: nothing darkens or brightens towards the edge, at any sigma."""
    for sigma in (0.0, 1.0, 4.0, 30.0):
        torch.testing.assert_close(smooth(torch.full((1, 32, 32), 0.7), sigma), torch.full((1, 32, 32), 0.7))
    flat = torch.full((1, 3, 32, 32), 0.5)
    similarity = ssim_map(flat, flat + 0.4)
    torch.testing.assert_close(
        similarity, similarity[:, :, 16:17, 16:17].expand_as(similarity), atol=1e-4, rtol=0
    )


def test_image_scores() -> None:
    score_map = torch.arange(2 * 10_000, dtype=torch.float32).reshape(2, 100, 100)
    assert image_score(score_map, Scoring(reduction="max")).tolist() == [9999, 19999]
    top = image_score(score_map, Scoring(reduction="top", top_share=0.0004))
    assert top.tolist() == [9997.5, 19997.5]
    assert image_score(score_map, Scoring(reduction="top", top_share=1.0))[0] == pytest.approx(4999.5)


@pytest.mark.parametrize("share", [0.0001, 0.002, 0.02, 0.2])
@pytest.mark.parametrize("pixels", ["rough", "one bright corner", "many alike"])
def test_the_highest_pixels_are_found_wherever_they_lie(share: float, pixels: str) -> None:
    score_map = torch.rand(2, 96, 96, generator=torch.Generator().manual_seed(0))
    if pixels == "one bright corner":
        score_map[0, :20, :20] += 1
    if pixels == "many alike":
        score_map = (score_map * 4).round()
    count = max(1, int(np.ceil(share * 96 * 96)))
    want = score_map.flatten(1).sort(dim=1, descending=True).values[:, :count].mean(dim=1)
    torch.testing.assert_close(image_score(score_map, Scoring(reduction="top", top_share=share)), want)


@pytest.mark.parametrize("reduction", ["max", "top"])
def test_nan_is_passed_through(reduction: str) -> None:
    error = torch.zeros(2, 32, 32)
    error[0, 3, 4] = torch.nan
    scores = image_score(smooth(error, 2.0), Scoring(reduction=reduction))
    assert scores.isnan().tolist() == [True, False]


def test_gradients_flow_after_inference_mode_filled_the_cache() -> None:
    x, y = pictures(33)
    with torch.inference_mode():
        ssim_map(x, y)
    y.requires_grad_()
    torch.autograd.backward(ssim_map(x, y).sum())
    assert y.grad is not None
    assert y.grad.isfinite().all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"reduction": "median"}, "median"),
        ({"top_share": 0.0}, "top_share is 0.0"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"l2_weight": 0.0, "ssim_weight": 0.0}, "not both 0"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], word: str) -> None:
    with pytest.raises(ModelError, match=word):
        Scoring(**change)  # type: ignore[arg-type]
