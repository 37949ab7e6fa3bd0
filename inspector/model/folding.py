"""A trained network made ready to infer: what no picture changes is computed once, at load.

The network is run once and watched. A batch norm that follows a convolution becomes part of its weights;
where oneDNN is at hand (packed.py) convolutions and linear layers keep their weights in its own layout, and
take the activation that follows with them. What the watching does not recognise stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from inspector.model import packed

MATRICES = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass
class Call:
    """A module at work, and whom it fed. dtype: of its matrix product.

    Not who fed it: in a circle they would keep the weights that were replaced until the next full collection.
    """

    name: str
    module: nn.Module
    shape: torch.Size  # of its input
    dtype: torch.dtype
    readers: list[Call] = field(default_factory=list)


def fold(network: nn.Module, run: Callable[[], object]) -> None:
    """Fold the network in place. run: infers once as it will be done later, precision and all, but not in
    inference mode: its tensors do not tell when they were written to.
    """
    for calls in _chains(_watch(network, run)):
        first, rest = calls[0], calls[1:]
        norm = next((c for c in rest if isinstance(c.module, nn.BatchNorm2d)), None)
        if norm is not None:
            _merge(first.module, norm.module)
        act = rest[-1].module if rest and not isinstance(rest[-1].module, nn.BatchNorm2d) else None
        if act is None and norm is not None:
            act = getattr(norm.module, "act", None)  # timm's norm layers have it inside
        replacement = packed.pack(first.module, first.shape, first.dtype, act)
        if replacement is not None:
            _put(network, first.name, replacement)
            act = None
        elif first.dtype != torch.float32:
            first.module.to(first.dtype)  # or autocast does it for every picture
        for call in rest:
            _put(network, call.name, nn.Identity())
        if act is not None and not isinstance(act, nn.Identity):
            _put(network, rest[-1].name, act)


def _watch(network: nn.Module, run: Callable[[], object]) -> list[Call]:
    calls: list[Call] = []
    made: dict[int, tuple[Call, Tensor, int]] = {}  # who made a tensor; it lives on, so its identity holds

    def before(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            source, _, version = made.get(id(x), (None, x, None))
            if version is not None and x._version != version:  # something was added to it, as in a ResNet
                source = None
            kind = x.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
            call = Call(name, module, x.shape, dtype)
            if source is not None:
                source.readers.append(call)
            calls.append(call)

        return hook

    def after(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        call = next(call for call in reversed(calls) if call.module is module)
        made[id(output)] = (call, output, output._version)

    handles = []
    watched: tuple[type[nn.Module], ...] = (*MATRICES, nn.BatchNorm2d, *packed.ACTIVATIONS)
    for name, module in network.named_modules():
        if isinstance(module, watched):
            handles.append(module.register_forward_pre_hook(before(name)))
            handles.append(module.register_forward_hook(after))
    try:
        with torch.inference_mode(mode=False), torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _chains(calls: list[Call]) -> list[list[Call]]:
    """A convolution or linear layer with the norm and the activation that follow it and nothing else."""
    count: dict[int, int] = {}
    for call in calls:
        count[id(call.module)] = count.get(id(call.module), 0) + 1
    chains = []
    for call in calls:
        if not isinstance(call.module, MATRICES) or count[id(call.module)] > 1:
            continue
        chain = [call]
        while len(chain[-1].readers) == 1 and count[id(chain[-1].readers[0].module)] == 1:
            follower = chain[-1].readers[0]
            normed = any(isinstance(c.module, nn.BatchNorm2d) for c in chain)
            if isinstance(follower.module, nn.BatchNorm2d) and (len(chain) > 1 or normed):
                break
            if isinstance(follower.module, MATRICES):
                break
            chain.append(follower)
            if not isinstance(follower.module, nn.BatchNorm2d):
                break
            if not isinstance(getattr(follower.module, "act", None), nn.Identity | None):
                break  # its activation is inside
        chains.append(chain)
    return chains


@torch.no_grad()
def _merge(matrix: nn.Module, norm: nn.Module) -> None:
    """Make the batch norm part of the convolution before it."""
    assert isinstance(matrix, nn.Conv2d | nn.ConvTranspose2d)  # noqa: S101 - a BatchNorm2d follows no other
    assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - as its caller has found
    matrix.weight, matrix.bias = fuse_conv_bn_weights(
        matrix.weight,
        matrix.bias,
        cast(Tensor, norm.running_mean),
        cast(Tensor, norm.running_var),
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(matrix, nn.ConvTranspose2d),
    )


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
