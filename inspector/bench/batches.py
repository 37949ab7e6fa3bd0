"""What parts would cost if several were inspected at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inspector.model.bundle import Bundle
from inspector.model.engine import error_of, plain_network
from inspector.model.folding import fold
from inspector.model.graph import Replay
from inspector.model.scoring import image_score, smooth


def batches(
    bundle: Bundle, device: torch.device, precision: str, sizes: tuple[int, ...]
) -> dict[int, Callable[[], object]]:
    """A run for each of these sizes: the whole batch, from the network's input on the host to its scores."""
    return {size: _batch(bundle, device, precision, size) for size in sizes}


@torch.inference_mode()
def _batch(bundle: Bundle, device: torch.device, precision: str, size: int) -> Callable[[], object]:
    network, side = plain_network(bundle).to(device), bundle.architecture.size
    parts = torch.rand(size, 3, side, side) * 2 - 1
    on_device = parts.to(device)
    network.for_inference()
    fold(network, lambda: error_of(network, on_device, bundle, precision))

    def infer(x: Tensor) -> Tensor:
        score_map = smooth(error_of(network, x, bundle, precision), bundle.scoring.sigma)
        return image_score(score_map, bundle.scoring)

    if device.type == "cuda":
        return Replay(infer, parts, device).again
    return torch.inference_mode()(lambda: infer(parts).numpy())
