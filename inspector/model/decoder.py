"""From the feature map back to a picture (paper, section 3.4)."""

from __future__ import annotations

from math import log2

from torch import nn

LAYERS = 6


class Decoder(nn.Sequential):
    """Six transposed convolutions: (B, dim, S/patch, S/patch) -> (B, 3, S, S) in [-1, 1].

    Layers that double the size have kernel 4, the others 3: a kernel divisible by its stride leaves no
    checkerboard. The doublings come late, where channels are few; a patch of 16 gives 1, 2, 2, 2, 2, 1.
    """

    def __init__(self, dim: int, patch: int):
        doublings = int(log2(patch))
        strides = [1] * (LAYERS - 1 - doublings) + [2] * doublings + [1]
        widths = [max(dim >> i, 16) for i in range(1, LAYERS)]
        layers: list[nn.Module] = []
        before = dim
        for stride, width in zip(strides[:-1], widths, strict=True):
            # the normalisation has its own bias
            layers += [_up(before, width, stride, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            before = width
        super().__init__(*layers, _up(before, 3, strides[-1], bias=True), nn.Tanh())


def _up(before: int, after: int, stride: int, *, bias: bool) -> nn.ConvTranspose2d:
    kernel = 4 if stride == 2 else 3
    return nn.ConvTranspose2d(before, after, kernel, stride, padding=1, bias=bias)
