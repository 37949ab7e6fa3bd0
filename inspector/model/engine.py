"""A bundle at work: picture in, score and map out. One thread owns an engine, from warm-up on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inspector.errors import ModelError
from inspector.model import bundle as bundles
from inspector.model import selftest
from inspector.model.bundle import Bundle
from inspector.model.network import Network, build
from inspector.model.preprocess import Image, picture, tensor
from inspector.model.scoring import image_score, smooth

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Scored:
    """score may be NaN: whoever judges must not take that for normal.

    map: (S, S) float32, smoothed error at the network's input resolution.
    stages: milliseconds of "preprocess", "model" and "map".
    """

    score: float
    map: NDArray[np.float32]
    stages: dict[str, float]


class Engine:
    """Loads a bundle's network on a device and scores pictures with it.

    device: "auto" takes the first GPU if there is one; "cpu"; "cuda" or "cuda:1".
    precision: "float32", "bfloat16" or "float16" (autocast; memory and map stay float32).
    threads: on the CPU; 0 leaves it to torch.
    Raises ModelError when the device is missing, too small, or the weights do not fit; BundleError.
    """

    def __init__(
        self, bundle: Bundle, device: str = "auto", precision: str = "float32", threads: int = 0
    ) -> None:
        if precision not in PRECISIONS:
            raise ModelError(f"precision is {precision!r}: expected one of {', '.join(PRECISIONS)}")
        if threads > 0:
            torch.set_num_threads(threads)
        self.bundle = bundle
        self.precision = precision
        self._device = resolve(device)
        self.device = describe(self._device)
        with _failures_named(self.device):
            self._network = _network(bundle).to(self._device).eval()

    def warm_up(self, runs: int = 3) -> None:
        """Score black pictures, so that the first part does not wait for allocations and kernels."""
        size = self.bundle.preprocessing.size
        x, y, width, height = self.bundle.preprocessing.roi or (0, 0, size, size)
        black = np.zeros((y + height, x + width), np.uint8)
        for _ in range(runs):
            self.score(black)

    def answer(self) -> tuple[float, ...]:
        """What it says of the test picture: see selftest.answer(). Raises ModelError."""
        scored = self.score(selftest.picture(self.bundle.preprocessing))
        return selftest.answer(scored.score, scored.map)

    def self_test(self) -> None:
        """Raise ModelError unless the answer to the test picture is the one recorded at calibration.

        Where none is recorded for this device and precision it must be finite, and the same twice.
        """
        who = f"bundle {self.bundle.id[:12]} on {self.device}, {self.precision}"
        found, threshold = self.answer(), self.bundle.threshold
        here = threshold is not None and (threshold.device, threshold.precision) == (
            self.device,
            self.precision,
        )
        known = threshold.self_test if threshold is not None and here else ()
        selftest.compare(found, known or self.answer(), self.precision, who)

    def score(self, image: Image) -> Scored:
        """Score one picture: (H, W) mono or (H, W, 3) RGB, uint8 or uint16.

        Raises ModelError for a picture of another kind, one smaller than the ROI, or a failing device.
        """
        with _failures_named(self.device), torch.inference_mode():
            began = time.perf_counter()
            x = tensor(picture(image, self.bundle.preprocessing), self.bundle.preprocessing, self._device)
            ready = self._now()
            with torch.autocast(
                self._device.type, PRECISIONS[self.precision], enabled=self.precision != "float32"
            ):
                reconstruction = self._network.reconstruct(x)
            reconstructed = self._now()
            error = self._network.error_map(reconstruction, self.bundle.scoring)
            score_map = smooth(error, self.bundle.scoring.sigma)
            score = float(image_score(score_map, self.bundle.scoring))
            result = score_map[0].cpu().numpy()
            done = time.perf_counter()
        stages = {
            "preprocess": 1e3 * (ready - began),
            "model": 1e3 * (reconstructed - ready),
            "map": 1e3 * (done - reconstructed),
        }
        return Scored(score, result, stages)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def calibrated_for(bundle: Bundle, engine: Engine) -> str | None:
    """None when the bundle's threshold holds on this engine, else the reason why it must not judge."""
    return calibrated_where(bundle, engine.device, engine.precision)


def calibrated_where(bundle: Bundle, device: str, precision: str) -> str | None:
    """The same for a device as describe() names it, without loading the bundle."""
    threshold = bundle.threshold
    if threshold is None:
        return f"bundle {bundle.id[:12]} is not calibrated; run `inspector calibrate`"
    if threshold.device != device:
        return (
            f"bundle {bundle.id[:12]} was calibrated on {threshold.device!r} and runs on {device!r}; "
            "run `inspector calibrate` on this device"
        )
    if threshold.precision != precision:
        return (
            f"bundle {bundle.id[:12]} was calibrated in {threshold.precision} and runs in "
            f"{precision}; run `inspector calibrate` at this precision"
        )
    return None


def resolve(device: str) -> torch.device:
    """The torch device for "auto", "cpu", "cuda" or "cuda:N". Raises ModelError."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if count else "cpu"
    if device == "cpu":
        return torch.device("cpu")
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise ModelError(f'device is {device!r}: expected "auto", "cpu", "cuda" or "cuda:0"')
    index = int(number or 0)
    if index >= count:
        raise ModelError(
            f"device is {device!r}, but this machine offers {count} CUDA devices to torch "
            f'{torch.__version__}; see `inspector doctor`, or set the device to "cpu" or "auto"'
        )
    return torch.device("cuda", index)


def describe(device: torch.device) -> str:
    """The name under which a calibration holds: "cpu", or "cuda:" and the GPU's model."""
    return f"cuda:{torch.cuda.get_device_name(device)}" if device.type == "cuda" else "cpu"


def _network(bundle: Bundle) -> Network:
    network = build(bundle.architecture)
    try:
        network.load_state_dict(bundles.weights(bundle))
    except RuntimeError as error:
        raise ModelError(f"the weights of bundle {bundle.id[:12]} do not fit its network: {error}") from error
    return network


@contextmanager
def _failures_named(device: str) -> Iterator[None]:
    """Whatever the libraries raise becomes ModelError: a frame they stumble over must not end the line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        # torch's CPU allocator raises a plain RuntimeError
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error):
            raise ModelError(
                f"{device} is out of memory for this model; free some, or train a smaller preset ({error})"
            ) from error
        raise ModelError(f"the model failed on {device}: {type(error).__name__}: {error}") from error
