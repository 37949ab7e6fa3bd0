"""Synthetic defects on normal parts: what a network learns to repair, and what settings are chosen on.

No real defect is needed, and none may be used: the test set stays a test set. Every kind takes a normal
part (uint8 RGB, (H, W, 3)) and a numpy Generator and returns the damaged part and the mask of the pixels
that visibly changed. Sizes are shares of the image's side, so that any resolution works.

Sources: pasted patches with Poisson blending after NSA (Schlüter et al., ECCV 2022), Perlin-shaped textures
after DRAEM (Zavrtanik et al., ICCV 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.errors import TrainingError
from training import shapes

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A normal part as the defect painters see it.

    image: (H, W, 3) uint8 RGB. donor: another normal part of the same shape, for patches and textures (the
    part itself if there is none). region: (H, W) bool, where defects may be centred.
    """

    image: Image
    donor: Image
    region: Mask

    @property
    def side(self) -> float:
        """What shares are shares of: the geometric mean of height and width, in pixels."""
        height, width = self.image.shape[:2]
        return float(np.sqrt(height * width))


@dataclass(frozen=True)
class Defective:
    """A damaged part: image (H, W, 3) uint8 RGB, mask (H, W) bool of what visibly changed, and the kind."""

    image: Image
    mask: Mask
    kind: str


Painter = Callable[[Part, np.random.Generator], tuple[Image, Mask]]

VISIBLE = 10  # grey levels: a change below this is no defect that anybody could be asked to find
SMALLEST = 2e-4  # share of the image: a smaller visible change is painted again


def pasted(part: Part, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A patch of a normal part, resized, turned and blended in elsewhere (NSA)."""
    image = part.image
    patch = _patch(part, rng)
    height, width = patch.shape[:2]
    shape = shapes.blob((height, width), rng) if rng.random() < 0.5 else np.ones((height, width), np.bool_)
    row, column = shapes.somewhere(part.region, rng)
    top = int(np.clip(row - height // 2, 1, image.shape[0] - height - 1))
    left = int(np.clip(column - width // 2, 1, image.shape[1] - width - 1))
    where = np.zeros(image.shape[:2], np.bool_)
    where[top : top + height, left : left + width] = shape
    layer = image.copy()
    layer[top : top + height, left : left + width] = patch
    if rng.random() < 0.3:  # a hard edge, as a foreign particle has
        return np.where(where[..., None], layer, image), where
    ys, xs = np.nonzero(where)  # seamlessClone centres the bounding box of the mask
    centre = (int(xs.min() + xs.max() + 1) // 2, int(ys.min() + ys.max() + 1) // 2)
    blend = cv2.MIXED_CLONE if rng.random() < 0.3 else cv2.NORMAL_CLONE
    stamp = where.astype(np.uint8) * 255
    return np.asarray(cv2.seamlessClone(layer, image, stamp, centre, blend), np.uint8), where


def _patch(part: Part, rng: np.random.Generator) -> Image:
    """A rectangle of the donor, 3 to 40 % of the image a side, turned, mirrored and resized."""
    limits = np.array(part.image.shape[:2]) - 4
    size = np.minimum(np.clip(rng.gamma(2.0, 0.06, 2) + 0.03, 0.03, 0.4) * part.side, limits)
    height, width = np.maximum(size, 5).astype(int)
    y = int(rng.integers(0, part.donor.shape[0] - height + 1))
    x = int(rng.integers(0, part.donor.shape[1] - width + 1))
    patch = np.rot90(part.donor[y : y + height, x : x + width], int(rng.integers(4)))
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    rows, columns = np.clip(np.array(patch.shape[:2]) * rng.uniform(0.7, 1.3), 5, limits).astype(int)
    small = cv2.resize(np.ascontiguousarray(patch), (int(columns), int(rows)), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def textured(part: Part, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Another texture, from a normal part or drawn, let in where Perlin noise is high (DRAEM)."""
    height, width = part.image.shape[:2]
    window = shapes.spot(
        (height, width), shapes.somewhere(part.region, rng), rng.uniform(0.05, 0.2) * part.side
    )
    where = (shapes.perlin((height, width), int(rng.integers(4, 17)), rng) > 0.1) & window
    texture = _turned(part.donor, rng) if rng.random() < 0.5 else _procedural(part.image, rng)
    opacity = rng.uniform(0.4, 1.0)
    return _over(part.image, texture, where.astype(np.float32) * opacity), where


def scratched(part: Part, rng: np.random.Generator) -> tuple[Image, Mask]:
    """One to three thin lines, brighter or darker than what they cross."""
    alpha = np.zeros(part.image.shape[:2], np.float32)
    start = shapes.somewhere(part.region, rng)
    for _ in range(int(rng.integers(1, 4))):
        length, thick = rng.uniform(0.05, 0.35) * part.side, rng.uniform(0.003, 0.012) * part.side
        alpha = np.maximum(alpha, shapes.stroke(alpha.shape, start, length, thick, rng))
        start = (start[0] + rng.normal(0, 0.02) * part.side, start[1] + rng.normal(0, 0.02) * part.side)
    return _over(part.image, _shifted(part.image, rng, 25, 110), alpha), alpha > 0.3


def stained(part: Part, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A soft or hard spot of another brightness and hue: stains, pores, dents."""
    size = float(np.clip(rng.gamma(1.5, 0.03) + 0.012, 0.012, 0.2)) * part.side
    where = _shape_at(part, size, rng)
    soft = rng.uniform(0.05, 0.3) * size
    alpha = np.asarray(cv2.GaussianBlur(where.astype(np.float32), (0, 0), max(soft, 0.5)), np.float32)
    return _over(part.image, _shifted(part.image, rng, 20, 100), alpha), alpha > 0.3


def missing(part: Part, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A piece broken off: what lies around the part is seen instead."""
    size = rng.uniform(0.04, 0.2) * part.side
    centre = shapes.somewhere(_edges(part), rng)
    where = _shape_at(part, size, rng, centre)
    return _over(part.image, _background(part, where, rng), where.astype(np.float32)), where


def bent(part: Part, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A region pushed aside, as bent leads and pressed threads are."""
    height, width = part.image.shape[:2]
    row, column = shapes.somewhere(part.region, rng)
    reach = rng.uniform(0.04, 0.15) * part.side
    push = rng.uniform(0.35, 0.8) * reach
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    weight = np.exp(-((ys - row) ** 2 + (xs - column) ** 2) / (2 * reach**2)).astype(np.float32)
    out = cv2.remap(
        part.image,
        xs - weight * np.float32(push * np.cos(angle)),
        ys - weight * np.float32(push * np.sin(angle)),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(out, np.uint8), weight > 0.1


KINDS: Mapping[str, Painter] = {
    "pasted": pasted,
    "textured": textured,
    "scratched": scratched,
    "stained": stained,
    "missing": missing,
    "bent": bent,
}


def damage(
    image: Image,
    rng: np.random.Generator,
    *,
    donor: Image | None = None,
    region: Mask | None = None,
    kinds: Sequence[str] = tuple(KINDS),
) -> Defective:
    """Damage a normal part in one randomly chosen way.

    image: (H, W, 3) uint8 RGB, at least 32 pixels a side. donor: another normal part (resized if its shape
    differs). region: (H, W) bool, where defects may be centred; None: what foreground() finds. kinds: names
    in KINDS.
    Returns a Defective whose mask is never empty. The same generator state gives the same defect.
    Raises TrainingError for an image of another type or shape, or an unknown kind.
    """
    _check(image, kinds)
    height, width = image.shape[:2]
    if donor is None:
        donor = image
    elif donor.shape != image.shape:
        donor = np.asarray(cv2.resize(donor, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    part = Part(image, donor, foreground(image) if region is None or not region.any() else region)
    for _ in range(8):
        kind = str(rng.choice(list(kinds)))
        out, where = KINDS[kind](part, rng)
        mask = _visible(image, out, where)
        if mask.mean() >= SMALLEST:
            return Defective(out, mask, kind)
    return _obvious(part, rng)


def foreground(image: Image) -> Mask:
    """Rough estimate of where the part is, (H, W) bool; all True where no plain background is found.

    The background is the colour along the image's border: what differs from it more than the border does from
    itself is the part.
    """
    rim = max(2, image.shape[0] // 50)
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), rim / 2), cv2.COLOR_RGB2LAB).astype(np.float32)
    border = np.ones(image.shape[:2], np.bool_)
    border[rim:-rim, rim:-rim] = False
    distance = np.linalg.norm(lab - np.median(lab[border], axis=0), axis=2)
    spread = float(np.percentile(distance[border], 90))
    mask = distance > 1.5 * spread + 2
    if spread > 25 or not 0.01 < mask.mean() < 0.7:
        return np.ones(image.shape[:2], np.bool_)
    closed = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)
    )
    return closed.astype(np.bool_)


def _visible(before: Image, after: Image, where: Mask) -> Mask:
    difference = np.abs(before.astype(np.int16) - after.astype(np.int16)).max(axis=2).astype(np.float32)
    changed = cv2.GaussianBlur(difference, (0, 0), max(0.5, before.shape[0] / 400)) > VISIBLE
    closed = cv2.morphologyEx((changed & where).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return closed.astype(np.bool_) & where


def _obvious(part: Part, rng: np.random.Generator) -> Defective:
    """Where chance drew nothing visible eight times: a spot in the opposite brightness."""
    where = _shape_at(part, 0.1 * part.side, rng)
    out = _over(part.image, part.image ^ np.uint8(128), where.astype(np.float32))
    return Defective(out, where, "stained")


def _shape_at(
    part: Part, size: float, rng: np.random.Generator, centre: tuple[float, float] | None = None
) -> Mask:
    """A closed irregular shape of about `size` pixels across, (H, W) bool, somewhere in the region."""
    height, width = part.image.shape[:2]
    row, column = shapes.somewhere(part.region, rng) if centre is None else centre
    stretch = rng.uniform(0.5, 1.0)
    tall, wide = (max(4, int(size * s)) for s in ((1.0, stretch) if rng.random() < 0.5 else (stretch, 1.0)))
    shape = shapes.blob((tall, wide), rng)
    canvas = np.zeros((height + 2 * tall, width + 2 * wide), np.bool_)
    top, left = int(row) - tall // 2 + tall, int(column) - wide // 2 + wide
    canvas[top : top + tall, left : left + wide] = shape
    return canvas[tall : tall + height, wide : wide + width]


def _over(image: Image, layer: NDArray[np.generic], alpha: Floats) -> Image:
    """Layer over image with opacity alpha (H, W) in [0, 1]."""
    mixed = image * (1 - alpha[..., None]) + np.asarray(layer, np.float32) * alpha[..., None]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _shifted(image: Image, rng: np.random.Generator, least: float, most: float) -> Floats:
    """The image brighter or darker by `least` to `most` grey levels, a little coloured if it has colours."""
    step = rng.uniform(least, most) * rng.choice([-1.0, 1.0])
    mean = float(image.mean())
    if mean + step > 250 or mean + step < 5:
        step = -step
    tint = rng.uniform(0.3, 1.0, 3) if _coloured(image) and rng.random() < 0.5 else np.ones(3)
    return np.asarray(image * rng.uniform(0.5, 1.0) + step * tint, np.float32)


def _turned(donor: Image, rng: np.random.Generator) -> Image:
    """The donor turned, zoomed and its brightness changed."""
    height, width = donor.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), rng.uniform(0.8, 2.0))
    out = cv2.warpAffine(donor, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    return np.asarray(np.clip(out * rng.uniform(0.6, 1.5) + rng.uniform(-40, 40), 0, 255), np.uint8)


def _procedural(image: Image, rng: np.random.Generator) -> Image:
    """Noise or stripes in two colours drawn around the image's own."""
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        mix = shapes.perlin((height, width), int(rng.integers(8, 65)), rng) * 0.7 + 0.5
    else:
        ys, xs = np.mgrid[:height, :width]
        angle, wave = rng.uniform(0, np.pi), rng.uniform(0.01, 0.06) * height
        mix = (np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * 2 * np.pi / wave) * 0.5 + 0.5).astype(
            np.float32
        )
    colours = image.reshape(-1, 3)[rng.integers(0, height * width, 2)].astype(np.float32)
    spread = (
        rng.normal(0, 60, (2, 3)) if _coloured(image) else np.repeat(rng.normal(0, 60, (2, 1)), 3, axis=1)
    )
    low, high = np.clip(colours + spread, 0, 255)
    mix = np.clip(mix, 0, 1)[..., None]
    return np.asarray(low * (1 - mix) + high * mix, np.uint8)


def _background(part: Part, where: Mask, rng: np.random.Generator) -> Image:
    """What is seen where a piece is gone: the surroundings carried on (inpainted small, then enlarged)."""
    height, width = part.image.shape[:2]
    reach = np.ones((2 * (height // 40) + 1,) * 2, np.uint8)
    hidden = cv2.dilate((part.region | where).astype(np.uint8), reach) if not part.region.all() else None
    if hidden is None or hidden.all():
        hidden = cv2.dilate(where.astype(np.uint8), reach)
    if hidden.all():
        return np.full_like(part.image, rng.integers(0, 256))
    small = (max(16, width // 4), max(16, height // 4))
    few = cv2.resize(part.image, small, interpolation=cv2.INTER_AREA)
    gone = cv2.resize(hidden, small, interpolation=cv2.INTER_NEAREST) * 255
    filled = cv2.resize(cv2.inpaint(few, gone, 3, cv2.INPAINT_TELEA), (width, height)).astype(np.float32)
    visible = hidden == 0
    smooth = cv2.resize(few, (width, height)).astype(np.float32)
    grain = float(np.std((part.image - smooth)[visible])) if visible.any() else 0.0
    noise = rng.normal(0, min(grain, 8.0), (height, width, 1))
    return np.asarray(np.clip(filled + noise, 0, 255), np.uint8)


def _edges(part: Part) -> Mask:
    """The tenth of the region where the picture changes most: outlines, where pieces break off."""
    grey = cv2.GaussianBlur(cv2.cvtColor(part.image, cv2.COLOR_RGB2GRAY), (0, 0), part.side / 100)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.asarray(part.region & (slope >= np.percentile(slope[part.region], 90)), np.bool_)


def _coloured(image: Image) -> bool:
    return bool(np.ptp(image[::8, ::8].astype(np.int16), axis=2).max(initial=0) > 12)


def _check(image: Image, kinds: Sequence[str]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 32:
        raise TrainingError(
            "a synthetic defect needs an image (H, W, 3) of uint8 with at least 32 pixels a side, got "
            f"{image.shape} of {image.dtype}; give mono images three channels and 16-bit images 8 bits first"
        )
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise TrainingError(f"unknown kinds of synthetic defect {unknown}: choose from {', '.join(KINDS)}.")
