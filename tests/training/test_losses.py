from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from inspector.errors import TrainingError
from inspector.model.network import METHODS, build
from inspector.model.records import Architecture
from training.data import Pictures, list_images
from training.losses import OBJECTIVES, entropy, l2_loss, ssim_loss
from training.options import METHOD, TrainOptions

G = torch.Generator().manual_seed(0)
X = torch.rand(2, 3, 24, 20, generator=G) * 2 - 1
Y = (X * 0.6 + 0.4 * (torch.rand(2, 3, 24, 20, generator=G) * 2 - 1)).clamp(-1, 1)


def test_l2_is_equation_11() -> None:
    x, y = X.double().numpy(), Y.double().numpy()
    per_image = [np.linalg.norm((a - b).ravel()) ** 2 / (24 * 20) for a, b in zip(x, y, strict=True)]
    assert l2_loss(X, Y).item() == pytest.approx(np.mean(per_image), rel=1e-5)


def ssim_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM round every pixel of one channel in [-1, 1], (H, W), by scipy's filter."""

    def blur(image: np.ndarray) -> np.ndarray:
        filtered: np.ndarray = gaussian_filter(image, 1.5, mode="mirror", radius=5)
        return filtered

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    c1, c2 = 0.02**2, 0.06**2
    found: np.ndarray = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return found


def test_ssim_is_equation_12() -> None:
    x, y = X.double().numpy().reshape(-1, 24, 20), Y.double().numpy().reshape(-1, 24, 20)
    want = 1 - np.mean([ssim_of(a, b) for a, b in zip(x, y, strict=True)])
    assert ssim_loss(X, Y).item() == pytest.approx(want, rel=1e-4)


def test_entropy_is_equation_14_with_its_minus() -> None:
    w = np.random.default_rng(0).dirichlet(np.ones(9), size=(2, 5))
    want = np.mean([-sum(v * np.log(v) for v in row) for row in w.reshape(-1, 9)])
    assert entropy(torch.from_numpy(w)).item() == pytest.approx(want)
    assert entropy(torch.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert entropy(torch.full((3, 8), 1 / 8)).item() == pytest.approx(np.log(8), rel=1e-6)


@pytest.mark.parametrize("memory", [True, False])
def test_the_loss_is_equations_13_and_15(tmp_path: Path, memory: bool) -> None:
    """From what the network put out, with weights that are all different."""
    rng = np.random.default_rng(0)
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 255, (32, 32, 3), np.uint8))
    architecture = Architecture(size=32, patch=8, dim=16, depth=1, heads=2, slots=10, memory=memory)
    options = TrainOptions(
        architecture=architecture,
        reconstruction_weight=0.7,
        ssim_weight=1.9,
        entropy_weight=0.3,
        memory_after=0.0,
    )
    torch.manual_seed(0)
    network = build(architecture).eval()
    parts = Pictures(list_images(tmp_path), options.preprocessing())
    losses = OBJECTIVES["paper"](options).losses(network, parts, [0, 2], rng)

    seen = np.stack([cv2.imread(str(tmp_path / f"{i}.png"))[..., ::-1] / 255 * 2 - 1 for i in (0, 2)])
    x = seen.transpose(0, 3, 1, 2)
    reconstruction = network(torch.from_numpy(x).float())
    y = reconstruction.output.detach().double().numpy()
    l2 = np.mean([np.linalg.norm((a - b).ravel()) ** 2 / 32**2 for a, b in zip(x, y, strict=True)])
    ssim = 1 - np.mean(
        [ssim_of(a, b) for a, b in zip(x.reshape(-1, 32, 32), y.reshape(-1, 32, 32), strict=True)]
    )
    want = 0.7 * (l2 + 1.9 * ssim)
    if memory:
        w = reconstruction.addressing.weights.detach().double().numpy().reshape(-1, 10)
        want += 0.3 * np.mean([-sum(v * np.log(v) for v in row if v > 0) for row in w])
    assert losses["loss"].item() == pytest.approx(want, rel=1e-4)
    assert losses["l2"].item() == pytest.approx(l2, rel=1e-4)


def test_minimising_the_entropy_sharpens() -> None:
    logits = torch.tensor([0.1, 0.2, 0.4], requires_grad=True)
    torch.autograd.backward(entropy(logits.softmax(0)))
    assert logits.grad is not None
    assert logits.grad[2] < 0 < logits.grad[0]  # a descent step raises the largest, lowers the smallest


def test_entropy_of_a_slot_that_the_shrinkage_cut_has_a_finite_gradient() -> None:
    w = torch.tensor([0.0, 1.0], requires_grad=True)
    torch.autograd.backward(entropy(w))
    assert w.grad is not None
    assert w.grad.isfinite().all()


def test_every_method_can_be_trained_and_no_other() -> None:
    assert set(OBJECTIVES) == set(METHODS)
    assert METHOD in METHODS
    with pytest.raises(TrainingError, match=r"'magic': expected one of .*paper"):
        TrainOptions(architecture=Architecture(method="magic"))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"held_out": 1.0},
        {"slots_from": "x"},
        {"memory_after": 1.0},
    ],
)
def test_impossible_options_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(change))):
        TrainOptions(**change)  # type: ignore[arg-type]
