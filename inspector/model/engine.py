"""A bundle at work: picture in, score and map out. One thread owns an engine, from warm-up on."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspector.errors import ModelError
from inspector.model import selftest
from inspector.model.bundle import Bundle
from inspector.model.fast import PRECISIONS, RUNTIMES, emulated, fast
from inspector.model.graph import Line, Replay
from inspector.model.pace import MOST, Pace, sizes
from inspector.model.preprocess import Image, Normalise, picture
from inspector.model.scoring import image_score, smooth

logger = logging.getLogger(__name__)

TIMED = 10  # batches of each size
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEEP, LARGEST = 1 << 30, 32 << 20  # bytes; glibc allows no more for the second
KINDS = [(dtype, shape) for dtype in (np.uint8, np.uint16) for shape in ((), (3,))]  # of pictures


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
    precision: "float32", "bfloat16" or "float16" (of the matrix products; memory and map stay float32).
    threads: on the CPU; 0 leaves it to torch.
    runtime: of the network, "torch" or, on a CPU in float32, "openvino".
    together: so many pictures may wait at once, and are scored in batches where warm_up() finds that these
    pay and say what the network says of each picture alone.

    The network is made fast at load, and must then still say what it said (fast.py). On a GPU everything from
    the uint8 picture to score and map is one CUDA graph (graph.py). Resizing is on the host on any device.
    Raises ModelError when the device is missing, too small, or the weights do not fit; BundleError.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        precision: str = "float32",
        threads: int = 0,
        together: int = 1,
        runtime: str = "torch",
    ) -> None:
        if precision not in PRECISIONS:
            raise ModelError(f"precision is {precision!r}: expected one of {', '.join(PRECISIONS)}")
        if runtime not in RUNTIMES:
            raise ModelError(f"runtime is {runtime!r}: expected one of {', '.join(RUNTIMES)}")
        if threads > 0:
            torch.set_num_threads(threads)
        self.bundle = bundle
        self.precision = precision
        self._device = resolve(device)
        self.device = describe(self._device)
        self.runtime = runtime
        if runtime == "openvino" and (self._device.type, precision) != ("cpu", "float32"):
            raise ModelError(
                f"runtime is 'openvino', which is for the CPU in float32; the model runs on {self.device} "
                f"in {precision}; set device to 'cpu' and precision to 'float32', or runtime to 'torch'"
            )
        if slow := emulated(self._device, precision):
            logger.warning("engine.precision: %s", slow)
        self._normalise = Normalise(bundle.preprocessing, self._device)
        self._line: Line | None = None
        self._replays: dict[tuple[np.dtype[Any], tuple[int, ...]], Replay] = {}
        self._sizes = sizes(together)
        self._pace = Pace()
        if self._device.type == "cpu":
            _keep_memory()
        with _failures_named(self.device), torch.inference_mode():
            shown = picture(selftest.picture(bundle.preprocessing), bundle.preprocessing)
            x = self._normalise(torch.from_numpy(shown).to(self._device))
            self._network = fast(bundle, precision, runtime, threads, x)

    @property
    def together(self) -> int:
        """How many pictures score_first() may score at once."""
        return max(self._pace.slowest_ms)

    def warm_up(self, runs: int = 3) -> None:
        """Score black pictures, so that the first part does not wait for allocations, kernels and graphs."""
        size = self.bundle.preprocessing.size
        x, y, width, height = self.bundle.preprocessing.roi or (0, 0, size, size)
        for dtype, channels in KINDS if self._device.type == "cuda" else KINDS[:1]:
            for _ in range(runs):
                self.score(np.zeros((y + height, x + width, *channels), dtype))
        self._pace = Pace(self._timed())

    def keep_warm(self) -> None:
        """Between parts, now and then: a GPU that idles clocks down and is slow for the next part.

        Raises ModelError for a failing device.
        """
        with _failures_named(self.device):
            for replay in list(self._replays.values())[:1]:  # the smallest
                replay.again()

    def answer(self) -> tuple[float, ...]:
        """What it says of the test picture: see selftest.answer(). Raises ModelError."""
        return _answer(self.score(selftest.picture(self.bundle.preprocessing)))

    def self_test(self) -> None:
        """Raise ModelError unless the answer to the test picture is the one recorded at calibration.

        Where none is recorded for this device and precision it must be finite, and the same twice.
        """
        who = f"bundle {self.bundle.id[:12]} on {self.device}, {self.precision}, {self.runtime}"
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
        return self.score_together([image])[0]

    def score_together(self, images: Sequence[Image]) -> list[Scored]:
        """The same for pictures of one kind, at once; each has the stages of all, for it waits for all."""
        began = time.perf_counter()
        return self._scored([self._small(image) for image in images], began)

    def score_first(self, images: Sequence[Image], left_ms: float) -> list[Scored]:
        """The same for the first of these, or for the first few at once: see pace.py.

        left_ms: to the first deadline of any part that waits. Raises ModelError for the first.
        """
        began = time.perf_counter()
        small = [self._small(images[0])]
        slowest_ms = spent_ms = 1e3 * (time.perf_counter() - began)
        while len(small) < self._pace.choose(images, left_ms - spent_ms, slowest_ms):
            try:
                small.append(self._small(images[len(small)]))
            except ModelError:
                break  # it is said when its own turn comes
            before_ms, spent_ms = spent_ms, 1e3 * (time.perf_counter() - began)
            slowest_ms = max(slowest_ms, spent_ms - before_ms)
        count = self._pace.whole(len(small))
        if count > 1:
            try:
                return self._scored(small[:count], began)
            except ModelError as error:
                logger.warning("pictures are scored one at a time from now on: %s", error)
                self._pace = Pace()
        return self._scored(small[:1], began)

    def _small(self, image: Image) -> Image:
        with _failures_named(self.device):
            return picture(image, self.bundle.preprocessing)

    def _scored(self, small: list[Image], began: float) -> list[Scored]:
        """Of what picture() has made; began: perf_counter, when that was begun."""
        with _failures_named(self.device), torch.inference_mode():
            pixels = cast(Image, np.stack(small))
            if self._device.type == "cuda":
                ready = time.perf_counter()
                answers, computed = self._replay(pixels)(pixels)
                size = self.bundle.architecture.size
                scores, maps = answers[:, 0].tolist(), answers[:, 1:].reshape(len(small), size, size)
            else:
                x = self._input(torch.from_numpy(pixels))
                ready = time.perf_counter()
                error = self._errors(x)
                computed = time.perf_counter()
                smoothed = smooth(error, self.bundle.scoring.sigma)
                scores, maps = image_score(smoothed, self.bundle.scoring).tolist(), smoothed.numpy()
            done = time.perf_counter()
        stages = {
            "preprocess": 1e3 * (ready - began),
            "model": 1e3 * (computed - ready),
            "map": 1e3 * (done - computed),
        }
        return [Scored(score, its, dict(stages)) for score, its in zip(scores, maps, strict=True)]

    def _timed(self) -> dict[int, list[float]]:
        """Milliseconds of batches by size, of the sizes that say of each picture what it gets alone."""
        if len(self._sizes) == 1:
            return {}
        shown = picture(selftest.picture(self.bundle.preprocessing), self.bundle.preprocessing)
        rolled = (np.roll(shown, len(shown) // MOST * n, axis=1) for n in range(self._sizes[-1]))
        small = [~one if n % 2 else one for n, one in enumerate(rolled)]
        times: dict[int, list[float]] = {}
        try:
            alone = [_answer(self._scored([one], 0.0)[0]) for one in small]
            for count in self._sizes:
                runs = [self._scored(small[:count], 0.0) for _ in range(TIMED)]
                self._scored([one[:, :, 0] for one in small[:count]], 0.0)  # mono, ready as well
                self._agree([_answer(one) for one in runs[-1]], alone)
                times[count] = [run[0].stages["model"] + run[0].stages["map"] for run in runs]
        except ModelError as error:
            logger.warning("pictures are scored at most %d at a time: %s", max(times, default=1), error)
            self._replays = {
                key: one for key, one in self._replays.items() if key[1][0] <= max(times, default=1)
            }
        return times

    def _agree(self, batch: list[tuple[float, ...]], alone: list[tuple[float, ...]]) -> None:
        """Raise ModelError unless each answer of a batch is that of its own picture, and of no other."""
        who = f"a batch of {len(batch)} on {self.device}"
        for k, found in enumerate(batch if len(batch) > 1 else ()):
            selftest.compare(found, alone[k], self.precision, who)
            nearest = int(np.abs(np.subtract(alone, found)).max(axis=1).argmin())
            if nearest != k:
                raise ModelError(f"self-test of {who}: picture {k} has the answer of picture {nearest}")

    def _errors(self, x: Tensor) -> Tensor:
        """(B, S, S) of the network's input."""
        return self._network(x)

    def _input(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) of B pictures."""
        inputs = [self._normalise(one) for one in pixels]
        return inputs[0] if len(inputs) == 1 else torch.cat(inputs)

    def _replay(self, pixels: Image) -> Replay:
        key = (pixels.dtype, pixels.shape)
        if key not in self._replays:
            self._line = self._line or Line(self._device)
            self._replays[key] = Replay(self._spoken, torch.from_numpy(pixels), self._device, self._line)
        return self._replays[key]

    def _spoken(self, pixels: Tensor) -> Tensor:
        """(B, 1 + S·S): scores, then maps, in one piece: what is read back from a GPU."""
        score_map = smooth(self._errors(self._input(pixels)), self.bundle.scoring.sigma)
        return torch.cat([image_score(score_map, self.bundle.scoring)[:, None], score_map.flatten(1)], dim=1)


def _answer(scored: Scored) -> tuple[float, ...]:
    return selftest.answer(scored.score, scored.map)


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


def _keep_memory() -> None:
    """Let glibc keep what it was given back: else every part has its tensors mapped and cleared anew."""
    with suppress(OSError, AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEEP)
        mallopt(M_MMAP_THRESHOLD, LARGEST)


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
