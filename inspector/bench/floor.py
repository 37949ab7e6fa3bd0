"""What a part must cost at least on this machine: its multiplications at the rate of a large matrix product,
its bytes at the rate of a large copy, whichever takes longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from inspector.bench.timing import Times
from inspector.model.bundle import Bundle
from inspector.model.fast import PRECISIONS, error_of, plain_network
from inspector.model.scoring import smooth

SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices
COPIED = {"cpu": 64 << 20, "cuda": 1 << 30}  # bytes


@dataclass(frozen=True)
class Work:
    """What one part asks for."""

    flops: float
    bytes: float  # weights at their precision, the picture, the map


def _attention(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any
) -> int:
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _distances(x: tuple[int, ...], y: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * prod(x) * y[-2]  # |x - y|² = |x|² + |y|² - 2 x·y


# what torch's counter does not know: attention on the CPU and the distances from a bank
UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._euclidean_dist: _distances,
    torch.ops.aten._cdist_forward: _distances,  # of few
}


def work(bundle: Bundle, precision: str) -> Work:
    """Counted while the plain network runs; errors that are not read count, too."""
    network = plain_network(bundle)
    size = bundle.architecture.size
    x = torch.zeros(1, 3, size, size)
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        smooth(error_of(network, x, bundle, "float32"), bundle.scoring.sigma)
    weights = sum(t.numel() for t in network.state_dict().values())
    each = PRECISIONS[precision].itemsize
    return Work(float(counter.get_total_flops()), float(each * weights + 3 * size * size + 4 * size * size))


def probes(device: torch.device, precision: str) -> dict[str, Callable[[], object]]:
    """A matrix product and a copy, to be timed beside what is measured."""
    kind = device.type
    a = torch.randn(SIDE[kind], SIDE[kind], device=device, dtype=PRECISIONS[precision])
    source = torch.ones(COPIED[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def finished(run: Callable[[], object]) -> Callable[[], object]:
        def whole() -> None:
            run()
            if kind == "cuda":
                torch.cuda.synchronize(device)

        return whole

    return {"matrix product": finished(lambda: a @ a), "copy": finished(lambda: target.copy_(source))}


def floor(needed: Work, device: torch.device, times: dict[str, Times]) -> dict[str, float]:
    """The figures that go with probes() timed; ms on the clock and on the processors."""
    side, copied = SIDE[device.type], COPIED[device.type]
    product, copy = (times[name].figures() for name in ("matrix product", "copy"))
    floors = {
        key: max(needed.flops * product[key] / (2 * side**3), needed.bytes * copy[key] / (2 * copied))
        for key in ("p50", "cpu_p50")
    }
    return {
        "gflop": needed.flops / 1e9,
        "mib": needed.bytes / 2**20,
        "gflop_per_s": 2e-6 * side**3 / product["p50"],
        "gb_per_s": 2e-6 * copied / copy["p50"],
        "ms": floors["p50"],
        "cpu_ms": floors["cpu_p50"],
    }
