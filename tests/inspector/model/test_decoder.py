import pytest
import torch
from torch import nn

from inspector.model.decoder import Decoder


@pytest.mark.parametrize("patch", [2, 4, 8, 16, 32])
def test_six_layers_undo_the_patch_exactly(patch: int) -> None:
    decoder = Decoder(32, patch).eval()
    ups = [m for m in decoder if isinstance(m, nn.ConvTranspose2d)]
    assert len(ups) == 6
    assert all(m.kernel_size[0] % m.stride[0] == 0 for m in ups)
    picture = decoder(torch.randn(1, 32, 3, 3) * 100)
    assert picture.shape == (1, 3, 3 * patch, 3 * patch)
    assert picture.abs().max() <= 1


def test_strides_of_the_paper() -> None:
    assert [m.stride[0] for m in Decoder(768, 16) if isinstance(m, nn.ConvTranspose2d)] == [1, 2, 2, 2, 2, 1]
