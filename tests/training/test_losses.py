import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from inspector.errors import TrainingError
from inspector.model.network import METHODS
from inspector.model.records import Architecture
from training.losses import OBJECTIVES, entropy, l2_loss, ssim_loss
from training.options import METHOD, TrainOptions

G = torch.Generator().manual_seed(0)
X = torch.rand(2, 3, 24, 20, generator=G) * 2 - 1
Y = (X * 0.6 + 0.4 * (torch.rand(2, 3, 24, 20, generator=G) * 2 - 1)).clamp(-1, 1)


def test_l2_is_equation_11() -> None:
    x, y = X.double().numpy(), Y.double().numpy()
    per_image = [np.linalg.norm((a - b).ravel()) ** 2 / (24 * 20) for a, b in zip(x, y, strict=True)]
    assert l2_loss(X, Y).item() == pytest.approx(np.mean(per_image), rel=1e-5)


def test_ssim_is_equation_12() -> None:
    def blur(image: np.ndarray) -> np.ndarray:
        filtered: np.ndarray = gaussian_filter(image, 1.5, mode="mirror", radius=5)
        return filtered

    values = []
    for a, b in zip(
        X.double().numpy().reshape(-1, 24, 20), Y.double().numpy().reshape(-1, 24, 20), strict=True
    ):
        ma, mb = blur(a), blur(b)
        va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
        c1, c2 = 0.02**2, 0.06**2
        values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert ssim_loss(X, Y).item() == pytest.approx(1 - np.mean(values), rel=1e-4)


def test_entropy_is_equation_14_with_its_minus() -> None:
    w = np.random.default_rng(0).dirichlet(np.ones(9), size=(2, 5))
    want = np.mean([-sum(v * np.log(v) for v in row) for row in w.reshape(-1, 9)])
    assert entropy(torch.from_numpy(w)).item() == pytest.approx(want)
    assert entropy(torch.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert entropy(torch.full((3, 8), 1 / 8)).item() == pytest.approx(np.log(8), rel=1e-6)


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
    "change", [{"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"held_out": 1.0}, {"slots_from": "x"}]
)
def test_impossible_options_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(change))):
        TrainOptions(**change)  # type: ignore[arg-type]
