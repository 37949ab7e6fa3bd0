"""Convolutions and linear layers as oneDNN likes them: weights in its own layout, activation included.

The operators are those that torch.compile uses on a CPU (torch.ops.mkldnn); here they are called without a
compiler. torch keeps them to itself, so pack() gives None wherever they are missing or would not do. Their
ReLU makes 0 of what is no number: a network whose weights are not finite must not be packed.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import GELU
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

RUNS = 3  # of which the fastest counts
FEW = 4  # outputs, of which oneDNN would compute 16
After = tuple[str, list[float], str]  # oneDNN's name of an activation, its numbers, its variant
ACTIVATIONS: dict[type[nn.Module], Callable[[Any], After]] = {
    nn.ReLU: lambda _: ("relu", [], ""),
    nn.ReLU6: lambda m: ("hardtanh", [m.min_val, m.max_val], ""),
    nn.Hardtanh: lambda m: ("hardtanh", [m.min_val, m.max_val], ""),
    nn.GELU: lambda m: ("gelu", [], m.approximate),
    GELU: lambda _: ("gelu", [], "none"),
    nn.Hardswish: lambda _: ("hardswish", [], ""),
    nn.SiLU: lambda _: ("swish", [], ""),
    nn.Sigmoid: lambda _: ("sigmoid", [], ""),
    nn.Tanh: lambda _: ("tanh", [], ""),
}
NEEDED = (
    "_reorder_convolution_weight",
    "_reorder_convolution_transpose_weight",
    "_reorder_linear_weight",
    "_convolution_pointwise",
    "_convolution_transpose_pointwise",
    "_linear_pointwise",
)


def available(dtype: torch.dtype) -> bool:
    """Whether this machine's oneDNN computes in this precision."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in NEEDED):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def pack(matrix: nn.Module, shape: torch.Size, dtype: torch.dtype, act: nn.Module | None) -> nn.Module | None:
    """The layer with its activation for an input of this shape, None where it must stay as it is."""
    weight = matrix.weight
    known = act is None or isinstance(act, nn.Identity) or type(act) in ACTIVATIONS
    if not isinstance(weight, Tensor) or weight.device.type != "cpu" or not known or not available(dtype):
        return None
    after = ("none", [], "") if act is None or isinstance(act, nn.Identity) else ACTIVATIONS[type(act)](act)
    if dtype == torch.float32 and Narrow.fits(matrix):
        return Narrow(matrix, act)
    forward = type(matrix).forward
    if isinstance(matrix, nn.Linear) and forward is nn.Linear.forward:
        return PackedLinear(matrix, shape, dtype, after)
    if isinstance(matrix, nn.Conv2d) and forward in (nn.Conv2d.forward, Conv2dSame.forward):
        return PackedConv(matrix, shape, dtype, after) if isinstance(matrix.padding, tuple) else None
    if isinstance(matrix, nn.ConvTranspose2d) and forward is nn.ConvTranspose2d.forward:
        return PackedTransposed(matrix, shape, dtype, after)
    return None


class Packed(nn.Module, ABC):
    """A layer with its activation, from an input of one shape; others do too, at the cost of a new layout."""

    def __init__(self, matrix: Any, shape: torch.Size, dtype: torch.dtype, after: After):
        super().__init__()
        self.dtype, self.after = dtype, after
        self.bias = None if matrix.bias is None else matrix.bias.detach().to(dtype)
        self.set_up(matrix, shape)
        plain, x = self.kernel(matrix.weight.detach()).to(dtype), torch.zeros(shape)
        own = self.laid_out(plain, shape)
        # The layout is chosen before the whole operator is known. Where it is not the one that the operator
        # wants, it is laid out anew for every picture, slowly: then it is better left plain. The sums do not
        # depend on it.
        self.weight = min((own, plain), key=lambda weight: self._seconds(x, weight))

    def set_up(self, matrix: Any, shape: torch.Size) -> None:
        """Keep what else the operator needs."""

    def kernel(self, weight: Tensor) -> Tensor:
        """The weights that the operator multiplies with."""
        return weight

    @abstractmethod
    def laid_out(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """The weights in oneDNN's layout."""

    @abstractmethod
    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The operator itself."""

    def forward(self, x: Tensor) -> Tensor:
        """See the layer that it stands for."""
        return self.product(x, self.weight)

    def _seconds(self, x: Tensor, weight: Tensor) -> float:
        def once() -> float:
            began = time.perf_counter()
            self.product(x, weight)
            return time.perf_counter() - began

        return min(once() for _ in range(RUNS))


class PackedLinear(Packed):
    """(..., I) -> (..., O)."""

    def laid_out(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """See Packed."""
        return _ops()._reorder_linear_weight(weight, shape.numel() // shape[-1])  # type: ignore[no-any-return]

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """See Packed."""
        return _ops()._linear_pointwise(x.to(self.dtype), weight, self.bias, *self.after)  # type: ignore[no-any-return]


class PackedConv(Packed):
    """(B, I, H, W) -> (B, O, h, w), channels last."""

    def set_up(self, matrix: Any, shape: torch.Size) -> None:
        """Padding. Where it is not the same on both sides a depthwise kernel grows by zeros, which costs less
        than zeros round the picture, and other kernels get those.
        """
        padding, self.margin, self.grown = list(matrix.padding), list[int](), [0, 0]
        if isinstance(matrix, Conv2dSame):
            axes = zip(shape[-2:], matrix.kernel_size, matrix.stride, matrix.dilation, strict=True)
            total = [_same(*axis) for axis in axes]
            padding = [n // 2 for n in total]
            if matrix.groups > 1 and set(matrix.dilation) == {1}:
                self.grown = [n % 2 for n in total]
                padding = [n - n // 2 for n in total]
            elif any(n % 2 for n in total):
                (top, left), padding = padding, [0, 0]
                self.margin = [left, total[1] - left, top, total[0] - top]
        self.how = (padding, list(matrix.stride), list(matrix.dilation), matrix.groups)

    def kernel(self, weight: Tensor) -> Tensor:
        """See Packed."""
        return F.pad(weight, [self.grown[1], 0, self.grown[0], 0])

    def laid_out(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """See Packed."""
        left, right, top, bottom = self.margin or [0] * 4
        size = [*shape[:2], shape[2] + top + bottom, shape[3] + left + right]
        return _ops()._reorder_convolution_weight(weight, *self.how, size)  # type: ignore[no-any-return]

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """See Packed."""
        x = x.to(self.dtype, memory_format=torch.channels_last)
        x = F.pad(x, self.margin) if self.margin else x
        return _ops()._convolution_pointwise(x, weight, self.bias, *self.how, *self.after)  # type: ignore[no-any-return]


class PackedTransposed(Packed):
    """(B, I, H, W) -> (B, O, h, w), channels last."""

    def set_up(self, matrix: Any, shape: torch.Size) -> None:
        """See Packed."""
        sizes = (matrix.padding, matrix.output_padding, matrix.stride, matrix.dilation)
        self.how = (*(list(size) for size in sizes), matrix.groups)

    def laid_out(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """See Packed."""
        return _ops()._reorder_convolution_transpose_weight(weight, *self.how, list(shape))  # type: ignore[no-any-return]

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """See Packed."""
        x = x.to(self.dtype, memory_format=torch.channels_last)
        y: Tensor = _ops()._convolution_transpose_pointwise(x, weight, self.bias, *self.how, *self.after)
        return y


class Narrow(nn.Module):
    """A convolution with few outputs: (B, I, H, W) -> (B, O, H, W).

    All its products are one matrix product; then what belongs to a neighbour is added there.
    """

    def __init__(self, matrix: Any, act: nn.Module | None):
        super().__init__()
        weight = matrix.weight.detach()
        if isinstance(matrix, nn.ConvTranspose2d):
            weight = weight.transpose(0, 1).flip(2, 3)
        self.window = weight.shape[2:]
        self.taps = weight.permute(2, 3, 0, 1).flatten(0, 2).contiguous()  # (rows · columns · O, I)
        self.bias = None if matrix.bias is None else matrix.bias.detach().view(-1, 1, 1, 1)
        self.act = nn.Identity() if act is None else act

    @staticmethod
    def fits(matrix: nn.Module) -> bool:
        """Whether this layer is one: stride 1, and as many places out as in."""
        if not isinstance(matrix, nn.Conv2d | nn.ConvTranspose2d):
            return False
        own = type(matrix).forward in (nn.Conv2d.forward, nn.ConvTranspose2d.forward)  # timm's may pad first
        middle = tuple(side // 2 for side in matrix.kernel_size)
        odd = all(side % 2 for side in matrix.kernel_size) and matrix.padding == middle
        single = {*matrix.stride, *matrix.dilation, matrix.groups} == {1} and not any(matrix.output_padding)
        return own and odd and single and matrix.out_channels <= FEW and matrix.padding_mode == "zeros"

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, _, height, width = x.shape
        products = self.taps @ x.permute(0, 2, 3, 1).flatten(0, 2).T
        products = products.view(*self.window, -1, batch, height, width)
        rows, columns = (side // 2 for side in self.window)
        out = products[rows, columns] + (0 if self.bias is None else self.bias)
        for row in range(self.window[0]):
            for column in range(self.window[1]):
                if (row, column) != (rows, columns):
                    here, there = _overlap(row - rows, height)
                    left, right = _overlap(column - columns, width)
                    out[..., here, left] += products[row, column][..., there, right]
        y: Tensor = self.act(out.transpose(0, 1))
        return y


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where a line and the same line, moved up by shift, are both there: in the line, in the moved one."""
    shift = max(-size, min(shift, size))
    return slice(max(-shift, 0), size - max(shift, 0)), slice(max(shift, 0), size + min(shift, 0))


def _ops() -> Any:
    return torch.ops.mkldnn


def _same(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Zeros in all that TensorFlow's "SAME" puts round one axis."""
    return int(max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0))
