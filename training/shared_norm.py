"""Batch norm over the parts of all processes, on the CPU too, where torch has none."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SharedNorm(nn.BatchNorm2d):
    """As BatchNorm2d on the whole batch: (B, C, H, W) -> the same. Keeps its keys; in eval it is one."""

    @staticmethod
    def put_into(network: nn.Module) -> None:
        """In place of every BatchNorm2d in the network: torch's fused SyncBatchNorm on a GPU, else this."""
        if next(network.parameters()).is_cuda:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # torch does not annotate it
            return
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SharedNorm  # parameters and buffers stay those that the optimiser knows

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._shared(x.float()).to(x.dtype)

    def _shared(self, x: Tensor) -> Tensor:
        over, by_channel = (0, 2, 3), (1, -1, 1, 1)
        number = x.new_tensor([x.numel() // x.shape[1]])
        total = _sum(torch.cat([number, x.sum(over)]))
        mean = total[1:] / total[0]
        x = x - mean.view(by_channel)
        variance = _sum(x.square().sum(over)) / total[0]
        self._remember(mean.detach(), (variance * total[0] / (total[0] - 1)).detach())
        x = x * (variance + self.eps).rsqrt().view(by_channel)
        if self.affine:
            x = x * self.weight.view(by_channel) + self.bias.view(by_channel)
        return x

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None  # noqa: S101 - the networks' norms all keep them, at a fixed rate
        assert self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum or 0.0)
        self.running_var.lerp_(variance, self.momentum or 0.0)


class _Sum(torch.autograd.Function):
    """Over all processes; the gradient of a sum is the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _sum(gradients[0].contiguous())


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)
    return total
