"""Drawn parts for `inspector demo`: a turned flange on a belt, seen by an industrial colour camera.

The same seed draws the same pixels on every machine with the same numpy and OpenCV.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.demo.defects import KINDS, damaged
from inspector.demo.surface import LIGHTS, Map, machine, shade
from inspector.errors import DataError

DEFECTS: tuple[str, ...] = tuple(KINDS)
TRUTH = "truth.json"

SHIFT = 0.008  # of the picture's side: ±2 px at 256
TURN = 2.0  # degrees
EXPOSURE = 0.03
STEEL = (0.985, 1.0, 1.02)
OIL = (0.95, 0.84, 0.64)
BELT = (0.042, 0.066, 0.060)
WELL = 6000.0  # electrons at white: shot noise
READ = 0.0035  # read noise, share of white


@dataclass(frozen=True)
class Part:
    """One picture on disk and the truth about it."""

    path: Path
    defect: str | None


def draw(
    generator: np.random.Generator, size: int = 256, defect: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One part: picture (size, size, 3) RGB and where its defect is (size, size), empty for a good part.

    Position, rotation, exposure, turning marks, belt and camera noise differ from part to part. Fresh
    generators of one seed draw the same part with and without its defect.
    Raises DataError for a defect that is not one of DEFECTS.
    """
    if defect is not None and defect not in KINDS:
        raise DataError(f"defect '{defect}' cannot be drawn; expected one of {', '.join(DEFECTS)}")
    flaw, generator = generator.spawn(2)  # so that a seed's good and bad parts differ in the defect alone
    part = machine(size) if defect is None else damaged(defect, size, flaw)
    luminance = shade(part, generator)
    layers = [luminance, part.metal, part.oil, part.inside, part.wall, part.mask.astype(np.float32)]
    light, metal, oil, inside, wall, mask = _place(layers, size, generator)
    tint = np.array(STEEL, np.float32) * (1 - oil[..., None]) + np.array(OIL, np.float32) * oil[..., None]
    shadow = _shadow(metal, size)
    belt = _belt(size, generator) * shadow[..., None]
    holes = wall[..., None] * np.array(STEEL, np.float32)
    behind = belt + inside[..., None] * (holes - belt)
    scene = behind + metal[..., None] * (light[..., None] * tint - behind)
    return _expose(scene, size, generator), mask > 0.5


def write_set(
    folder: Path,
    *,
    good: int,
    bad: int = 0,
    seed: int = 0,
    size: int = 256,
    progress: Callable[[], None] | None = None,
) -> list[Part]:
    """Draw good and bad parts in mixed order as lossless PNG; `progress` is called once a part.

    File names are numbers in line order and say nothing about the part: the truth is in truth.json
    ({file name: defect or null}). Bad parts go through DEFECTS in turn. Sets of different seeds share
    no picture. Raises DataError when the folder cannot be written.
    """
    kinds: list[str | None] = [None] * good + [DEFECTS[i % len(DEFECTS)] for i in range(bad)]
    order = np.random.default_rng(seed).permutation(len(kinds))
    parts = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for position, index in enumerate(order):
            path = folder / f"part-{position:04d}.png"
            kind = kinds[index]
            picture, _ = draw(np.random.default_rng((seed, position)), size, kind)
            path.write_bytes(_png(picture))
            parts.append(Part(path, kind))
            if progress is not None:
                progress()
        truth = {part.path.name: part.defect for part in parts}
        (folder / TRUTH).write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{folder}: parts cannot be written: {error.strerror}; expected a writable folder"
        ) from None
    return parts


def read_truth(folder: Path) -> dict[str, str | None]:
    """File name → defect (None for a good part) of a folder that write_set wrote."""
    truth: dict[str, str | None] = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
    return truth


def _png(picture: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _place(layers: list[Map], size: int, generator: np.random.Generator) -> list[Map]:
    """Average the part's maps down to the picture and put them on the belt, a little moved and turned."""
    matrix = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), generator.uniform(-TURN, TURN), 1.0)
    matrix[:, 2] = matrix[:, 2] + size * generator.uniform(-SHIFT, SHIFT, 2)
    small = (cv2.resize(layer, (size, size), interpolation=cv2.INTER_AREA) for layer in layers)
    return [np.asarray(cv2.warpAffine(one, matrix, (size, size), flags=cv2.INTER_CUBIC)) for one in small]


def _shadow(metal: Map, size: int) -> Map:
    """Light left on the belt: a contact shadow all round and a soft one away from the main light."""
    azimuth, reach = LIGHTS[0][0], 0.022 * size
    move = np.array([[1, 0, -reach * math.cos(azimuth)], [0, 1, -reach * math.sin(azimuth)]])
    cast = cv2.GaussianBlur(cv2.warpAffine(metal, move, (size, size)), (0, 0), 0.016 * size)
    contact = cv2.GaussianBlur(metal, (0, 0), 0.008 * size)
    return np.asarray((1 - 0.62 * cast) * (1 - 0.45 * contact), np.float32)


@lru_cache(maxsize=4)
def _weave(size: int) -> Map:
    """A stretch of belt (2·size, 2·size): embossed PVC, worn along its run."""
    n = 2 * size
    generator = np.random.default_rng(1)
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) * np.float32(2 * math.pi * 64 / size)
    emboss = np.sin(x + y) * np.sin(x - y)
    wear = cv2.GaussianBlur(
        generator.standard_normal((n, n), np.float32), (0, 0), sigmaX=size / 12, sigmaY=size / 300
    )
    dirt = cv2.GaussianBlur(generator.standard_normal((n, n), np.float32), (0, 0), size / 25)
    return np.asarray(1 + 0.16 * emboss + 0.025 * wear / wear.std() + 0.05 * dirt / dirt.std(), np.float32)


def _belt(size: int, generator: np.random.Generator) -> Map:
    x, y = generator.integers(0, size, 2)
    return np.asarray(_weave(size)[y : y + size, x : x + size, None] * np.array(BELT, np.float32), np.float32)


@lru_cache(maxsize=4)
def _vignette(size: int) -> Map:
    """cos⁴ fall-off of a short lens, and a lamp that is a little stronger at one side."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    squared = axis[None, :] ** 2 + axis[:, None] ** 2
    return np.asarray(
        (1 + 0.13 * squared) ** -2 * (1 + 0.05 * axis[None, :] - 0.03 * axis[:, None]), np.float32
    )


def _expose(scene: Map, size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Lens, sensor noise and gamma: linear light (size, size, 3) → uint8."""
    gain = np.float32(1 + generator.uniform(-EXPOSURE, EXPOSURE))
    light = cv2.GaussianBlur(scene, (0, 0), 0.0020 * size) * (_vignette(size)[..., None] * gain)
    sigma = np.sqrt(np.maximum(light, 0) / WELL + READ**2)
    light += sigma * generator.standard_normal(light.shape, np.float32)
    return np.asarray(np.clip(light, 0, 1) ** np.float32(1 / 2.2) * 255 + 0.5, np.uint8)
