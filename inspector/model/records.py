"""What bundle.json holds: plain frozen records, checked when made, readable by people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from math import isfinite
from typing import Any, TypeVar

from inspector.errors import BundleError, ModelError

R = TypeVar("R")

ORDER_STATISTIC = "order-statistic"
EXTRAPOLATED = "extrapolated"
EXPOSURES = ("even", "as-is")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(message)


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the network again; sizes in pixels, tokens and channels.

    Raises ModelError when the sizes do not fit each other.
    """

    method: str = "paper"
    size: int = 384  # input is size x size pixels
    patch: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 8
    memory: bool = True
    attention: bool = True
    slots: int = 500
    temperature: float = 0.05  # divides the cosine before the softmax; 1 is the paper as written
    backbone: str = ""  # timm's name or "drawn"; not of the paper's method; feature has no patch and heads
    bank: int = 0  # normal features kept in each bank to measure distances from; not of the paper's method
    scales: int = 1  # banks of each level, each over places twice as large as the one before
    levels: tuple[int, ...] = ()  # stages or blocks of it that are reconstructed; empty: the usual ones
    zooms: tuple[float, ...] = (1.0,)  # sizes in which the backbone sees the part, shares of size

    def __post_init__(self) -> None:
        if self.method == "feature":
            _require(self.size > 0, f"architecture.size is {self.size}: expected a positive number of pixels")
            _require(
                bool(self.backbone),
                'architecture.backbone is empty: the feature method needs a timm model\'s name or "drawn"',
            )
        _require(
            self.method == "feature" or self.patch in (2, 4, 8, 16, 32),
            f"architecture.patch is {self.patch}: expected 2, 4, 8, 16 or 32, which six layers can undo",
        )
        _require(
            self.method == "feature" or (self.size > 0 and self.size % self.patch == 0),
            f"architecture.size is {self.size}: expected a positive multiple of the patch size {self.patch}",
        )
        _require(
            self.heads > 0 and self.dim > 0 and self.dim % self.heads == 0,
            f"architecture.dim is {self.dim}: expected a positive multiple of the {self.heads} heads",
        )
        _require(
            self.method != "restore" or not self.bank or bool(self.backbone),
            "architecture.backbone is empty: the banks of restore hold features of one",
        )
        _require(self.bank >= 0, f"architecture.bank is {self.bank}: expected 0 (no bank) or more features")
        _require(
            bool(self.zooms) and all(isfinite(z) and self.size * z >= 8 for z in self.zooms),
            f"architecture.zooms is {list(self.zooms)}: expected factors that leave 8 pixels a side or more",
        )
        _require(
            self.method != "paper" or self.zooms == (1.0,),
            f"architecture.zooms is {list(self.zooms)}: the method paper sees the part in one size",
        )
        _require(
            self.method != "feature" or self.zooms[0] == 1,
            f"architecture.zooms is {list(self.zooms)}: expected 1 first, the size that is reconstructed",
        )
        _require(
            self.method != "feature" or self.bank > 0 or len(self.zooms) == 1,
            f"architecture.zooms is {list(self.zooms)}: expected 1 alone where there is no bank",
        )
        _require(self.scales > 0, f"architecture.scales is {self.scales}: expected 1 or more")
        _require(self.depth > 0, f"architecture.depth is {self.depth}: expected at least one layer")
        _require(self.slots >= 2, f"architecture.slots is {self.slots}: expected at least 2 memory slots")
        _require(
            isfinite(self.temperature) and self.temperature > 0,
            f"architecture.temperature is {self.temperature}: expected a positive number",
        )


PRESETS: dict[str, Architecture] = {
    "paper": Architecture(),
    "small": Architecture(size=256, patch=16, dim=256, depth=4, heads=8),
    "tiny": Architecture(size=128, patch=16, dim=128, depth=2, heads=4, slots=200),
}

_FEATURE = Architecture(
    method="feature",
    backbone="tf_efficientnet_lite0",
    size=384,
    dim=192,
    depth=3,
    slots=1000,
    bank=2000,
    scales=3,
)
FEATURE_PRESETS: dict[str, Architecture] = {
    "paper": replace(_FEATURE, backbone="vit_base_patch14_dinov2", size=392, dim=384, depth=4),
    "small": _FEATURE,
    "tiny": replace(_FEATURE, size=256, dim=128, depth=2, slots=300, bank=1000),
}

_RESTORE = Architecture(method="restore", backbone="drawn", bank=1000, zooms=(0.375, 0.75, 1.5))
RESTORE_PRESETS: dict[str, Architecture] = {
    "paper": replace(_RESTORE, bank=2000),
    "small": replace(_RESTORE, size=256, dim=192, depth=2, heads=6),
    "tiny": replace(_RESTORE, size=128, dim=128, depth=2, heads=4, slots=200, bank=500),
}


def preset(name: str, method: str = "paper") -> Architecture:
    """The sizes that go by this name with this method. Raises ModelError for one not in PRESETS."""
    if name not in PRESETS:
        raise ModelError(f"preset {name!r} is not known: expected one of {', '.join(sorted(PRESETS))}")
    presets = {"feature": FEATURE_PRESETS, "restore": RESTORE_PRESETS}.get(method, PRESETS)
    return replace(presets[name], method=method)


@dataclass(frozen=True)
class Preprocessing:
    """From a camera's picture to the network's input: cut out the ROI, resize to a square, normalise.

    size: pixels. roi: x, y, width, height in source pixels, None for the whole picture.
    mean, std: per channel, for intensities in [0, 1]; 0.5 and 0.5 give [-1, 1].
    exposure: "as-is", or "even", where every picture is brightened until its highlights are white.
    """

    size: int = 384
    roi: tuple[int, int, int, int] | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    exposure: str = "as-is"

    def __post_init__(self) -> None:
        _require(
            self.exposure in EXPOSURES,
            f"preprocessing.exposure is {self.exposure!r}: expected one of {', '.join(EXPOSURES)}",
        )
        _require(self.size > 0, f"preprocessing.size is {self.size}: expected a positive number of pixels")
        if self.roi is not None:
            x, y, width, height = self.roi
            _require(
                x >= 0 and y >= 0 and width > 0 and height > 0,
                f"preprocessing.roi is {self.roi}: expected x, y >= 0 and width, height > 0",
            )
        _require(all(s > 0 for s in self.std), f"preprocessing.std is {self.std}: expected positive numbers")


@dataclass(frozen=True)
class Scoring:
    """From a reconstruction to a score map and an image score.

    sigma: of the Gaussian that smooths the map, in pixels of the network's input.
    reduction: "max" of the map, or "top", the mean of its highest top_share (0 to 1].
    """

    l2_weight: float = 1.0
    ssim_weight: float = 1.0
    sigma: float = 4.0
    reduction: str = "max"
    top_share: float = 0.01

    def __post_init__(self) -> None:
        _require(
            self.reduction in ("max", "top"),
            f'scoring.reduction is {self.reduction!r}: expected "max" or "top"',
        )
        _require(0 < self.top_share <= 1, f"scoring.top_share is {self.top_share}: expected 0 < share <= 1")
        _require(self.sigma >= 0, f"scoring.sigma is {self.sigma}: expected 0 (no smoothing) or more pixels")
        _require(
            self.l2_weight >= 0 and self.ssim_weight >= 0 and self.l2_weight + self.ssim_weight > 0,
            f"scoring.l2_weight and ssim_weight are {self.l2_weight} and {self.ssim_weight}: "
            "expected numbers >= 0, not both 0",
        )


@dataclass(frozen=True)
class Threshold:
    """A threshold and its evidence: reject when score > value.

    Of all normal parts at most target_rate are rejected, with this confidence, as far as the n parts
    can prove it; proven_rate is what they do prove, whatever the distribution of the scores. Valid on this
    device and precision alone. method: "order-statistic", or "extrapolated", where a tail was fitted because
    n is too small for a proof.
    """

    value: float
    target_rate: float
    confidence: float
    proven_rate: float
    n: int
    rank: int  # of the n scores so many are not above value
    method: str
    device: str
    precision: str
    created: str  # ISO 8601, UTC
    scores_sha256: str  # of the n scores as float64, little endian, in the order they were taken
    source: str  # where the normal parts came from
    self_test: tuple[float, ...] = ()  # selftest.answer() of this engine; empty in bundles from before
    interval: tuple[float, ...] = ()  # around the score that target_rate of normal parts exceed: either limit
    # holds with this confidence, and the upper one is value; empty where the n parts give none

    @property
    def proven(self) -> bool:
        """Whether the n parts were enough to prove the rate asked for."""
        return self.proven_rate <= self.target_rate

    @property
    def extrapolated(self) -> bool:
        """Whether value rests on a fitted tail, not on scores that were seen."""
        return self.method == EXTRAPOLATED

    @property
    def promise(self) -> str:
        """What it promises and what that rests on, in one line."""
        asked = f"at most {self.target_rate:.3g} of normal parts rejected at {self.confidence:.0%}"
        if self.extrapolated:
            return f"EXTRAPOLATED from {self.n} parts: {asked}, if the fitted tail is true"
        if self.proven:
            return f"proven by {self.n} parts: {asked}"
        return f"NOT proven by {self.n} parts: they prove {self.proven_rate:.3g}; {asked} was asked"


def to_json(record: Any) -> dict[str, Any]:
    """A record as a JSON object."""
    return asdict(record)


def from_json(kind: type[R], data: object, where: str) -> R:
    """The record that to_json() wrote. Raises BundleError, naming file and key, for anything else."""
    if not isinstance(data, Mapping):
        raise BundleError(f"{where}: found {type(data).__name__}, expected an object")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]  # every caller passes a dataclass
    for key in data:
        if key not in known:
            raise BundleError(f"{where}.{key}: unknown key; the bundle comes from another version")
    for name, f in known.items():
        if name not in data and f.default is MISSING:
            raise BundleError(f"{where}.{name}: missing key; the bundle comes from another version")
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in data.items()})
    except (TypeError, ValueError) as error:
        raise BundleError(f"{where}: a value has the wrong type or length ({error})") from error
    except ModelError as error:
        raise BundleError(f"{where}: {error}; the bundle comes from another version, train anew") from error
