"""A bundle's network made fast on one device: it must then still say what it said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from inspector.errors import ModelError
from inspector.model import bundle as bundles
from inspector.model import packed
from inspector.model.bundle import Bundle
from inspector.model.converted import Converted
from inspector.model.folding import fold
from inspector.model.network import Network, build

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RUNTIMES = ("torch", "openvino")
FAITHFUL = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.1}  # share of the map's peak that may be moved

Errors = Callable[[Tensor], Tensor]  # (B, 3, S, S), the network's input -> (B, S, S), not smoothed


def fast(bundle: Bundle, precision: str, runtime: str, threads: int, x: Tensor) -> Errors:
    """The bundle's error map on the device of x, a test picture.

    By torch folded (folding.py), or as it was trained where that changes what it says, as of an odd backbone;
    by OpenVINO (converted.py) as it is asked for. threads: see Converted. Raises ModelError, BundleError.
    """
    network = plain_network(bundle).to(x.device)
    if x.device.type == "cuda" and precision != "float32":
        network = network.to(memory_format=torch.channels_last)  # as tensor cores want it
    plain = partial(error_of, network, bundle=bundle, precision=precision)
    wanted = plain(x)
    if not wanted.isfinite().all():
        return plain  # its score must stay no number, which activations made fast would hide
    if runtime == "openvino":
        return _faithful(Converted(bundle, threads), wanted, bundle, x)
    network.for_inference()
    fold(network, lambda: plain(x))
    off = _moved(plain(x), wanted)
    if off <= FAITHFUL[precision]:
        return plain
    logger.warning(
        "bundle %s runs as it was trained, not folded: that would move its map by %.2g of its peak",
        bundle.id[:12],
        off,
    )
    return partial(error_of, plain_network(bundle).to(x.device), bundle=bundle, precision=precision)


def _faithful(converted: Errors, wanted: Tensor, bundle: Bundle, x: Tensor) -> Errors:
    """It, if it says what is wanted of x. Raises ModelError."""
    off = _moved(converted(x), wanted)
    if not off <= FAITHFUL["float32"]:
        raise ModelError(
            f"bundle {bundle.id[:12]} by OpenVINO: the map of a test picture moves by {off:.2g} of its peak, "
            f"expected at most {FAITHFUL['float32']:g}; set engine.runtime to 'torch'"
        )
    return converted


def _moved(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def emulated(device: torch.device, precision: str) -> str:
    """Why this precision is slower than float32 on the device, not faster; "" where it is not."""
    if device.type != "cpu" or precision == "float32" or packed.available(PRECISIONS[precision]):
        return ""
    return f"this CPU does not compute in {precision}: it takes many times as long as float32"


def error_of(network: Network, x: Tensor, bundle: Bundle, precision: str) -> Tensor:
    """(B, S, S) error map of the network's input x, not smoothed, in this precision."""
    kind = x.device.type
    reduced = precision != "float32"
    # a graph must not depend on what autocast has cached outside of it
    with torch.autocast(kind, PRECISIONS[precision], enabled=reduced, cache_enabled=kind == "cpu"):
        return network.anomaly_map(x, bundle.scoring)


def plain_network(bundle: Bundle) -> Network:
    """The network as it was trained, to infer with, on the CPU. Raises ModelError and BundleError."""
    network = build(bundle.architecture)
    try:
        network.load_state_dict(bundles.weights(bundle))
    except RuntimeError as error:
        raise ModelError(
            f"the weights of bundle {bundle.id[:12]} do not fit its network; a bundle of another "
            f"version must be trained anew: {error}"
        ) from error
    return network.eval()
