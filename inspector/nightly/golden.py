"""What a candidate is held against: normal parts kept apart, known defects, and synthetic ones.

`<data>/golden/<recipe>/normal` and `defect` may hold pictures that an integrator has put there; they are
never trained on.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from inspector.errors import TrainingError
from inspector.model.engine import Engine
from inspector.model.preprocess import Image
from inspector.nightly import commissioning
from inspector.nightly.collect import Picture
from inspector.settings import Settings
from training.data import list_images, read_image
from training.defects import damage
from training.gate import GOLDEN, Shown
from training.trial import eight_bit

NORMALS = 400  # at most …
SYNTHETIC = 600  # … and so many synthetic defects on them


@dataclass(frozen=True)
class Exhibit:
    """A picture of the golden set. known: a real defect."""

    name: str
    image: Image
    defective: bool
    known: bool
    kind: str


def exhibits(
    settings: Settings,
    recipe: str,
    apart: list[Picture],
    defects: list[Picture],
    seed: int,
    *,
    only: Container[str] | None = None,
) -> Iterator[Exhibit]:
    """The golden set, one picture after the other; the same for the same night. only: names, for these."""
    normal, defect = commissioning.golden(settings, recipe)
    region = settings.recipe[recipe].region
    good = [*((one.path, one.why) for one in apart[:NORMALS]), *((str(f), GOLDEN) for f in _images(normal))]
    bad = [*((one.path, "labelled") for one in defects), *((str(f), GOLDEN) for f in _images(defect))]
    for real, defective in ((good, False), (bad, True)):
        for path, kind in real:
            if only is None or path in only:
                yield Exhibit(path, read_image(Path(path)), defective, defective, kind)
    for number in range(min(SYNTHETIC, 4 * len(apart))):
        part = apart[number % len(apart)]
        name = f"{part.path}, synthetic {number}"
        if only is None or name in only:
            rng = np.random.default_rng((seed, 11, number))  # each its own, so that one can be made alone
            donor = apart[int(rng.integers(len(apart)))]
            image, kind = _damaged(read_image(part.file), read_image(donor.file), region, rng)
            yield Exhibit(name, image, True, False, kind)


def compare(
    active: Engine, candidate: Engine, parts: Iterator[Exhibit], *, progress: bool = True
) -> list[Shown]:
    """Score every part with both, in turn. Raises TrainingError for a score that is not finite."""
    shown = []
    for part in tqdm(parts, desc="gate", unit="part", leave=False, disable=not progress):
        scored = [engine.score(part.image) for engine in (active, candidate)]
        if not all(np.isfinite(one.score) for one in scored):
            raise TrainingError(
                f"{part.name} scores {scored[0].score} and {scored[1].score}: expected numbers"
            )
        times = [sum(one.stages.values()) for one in scored]
        shown.append(
            Shown(
                part.name,
                part.defective,
                part.known,
                part.kind,
                scored[0].score,
                scored[1].score,
                (times[0], times[1]),
            )
        )
    return shown


def _images(place: Path) -> list[Path]:
    return list_images(place) if place.is_dir() and any(place.iterdir()) else []


def _damaged(
    part: Image, donor: Image, region: tuple[int, int, int, int] | None, rng: np.random.Generator
) -> tuple[Image, str]:
    """The frame with a synthetic defect, of 8 bit, in what the model sees of it."""
    frame, other = eight_bit(part), eight_bit(donor)
    height, width = frame.shape[:2]
    x, y, w, h = region or (0, 0, width, height)
    seen, patch = frame[y : y + h, x : x + w], other[y : y + h, x : x + w]
    defect = damage(seen, rng, donor=patch if patch.shape == seen.shape else seen)
    bad = frame.copy()
    bad[y : y + h, x : x + w] = defect.image
    if part.dtype == np.uint16:  # what is not damaged keeps its depth, or coarse steps would be found
        changed = (bad != frame).any(axis=2, keepdims=True)
        deep = part if part.ndim == 3 else part[..., None]
        return np.where(changed, bad.astype(np.uint16) * 257, deep), defect.kind
    return bad, defect.kind
