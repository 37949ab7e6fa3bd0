"""Which parts go on the contact sheets of a run: the worst errors, and an even draw of good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspector.model.engine import Engine
from training import contact_sheet
from training.contact_sheet import Tile
from training.data import read_image
from training.datasets import Sample
from training.evaluate import Evaluation, Roi, cropped, sample_mask

WORST = 10  # misses and false rejects on the sheet of the worst
EACH = 10  # good and bad parts on the sheet of heatmaps

Indices = NDArray[np.intp]


def draw(engine: Engine, evaluation: Evaluation, threshold: float, roi: Roi | None, path: Path) -> None:
    """Write <path>-worst.png, the worst misses and false rejects, and <path>-heatmaps.png, evenly drawn.

    The threshold is the one that the parts are judged by. Raises DataError where a sheet cannot be written.
    """
    labels, scores = evaluation.labels, evaluation.scores
    bad, good = np.flatnonzero(labels), np.flatnonzero(~labels)
    escaped, rejected = (scores[bad] <= threshold).sum(), (scores[good] > threshold).sum()

    def tiles(indices: Indices) -> list[Tile]:
        return [_tile(engine, evaluation.samples[k], roi) for k in indices]

    title = " / ".join(path.parts[-3:])
    contact_sheet.write(
        path.with_name(f"{path.name}-worst.png"),
        title,
        threshold,
        [
            (
                f"Defective parts with the lowest scores ({escaped} of {bad.size} escaped)",
                tiles(bad[np.argsort(scores[bad])][:WORST]),
            ),
            (
                f"Good parts with the highest scores ({rejected} of {good.size} rejected)",
                tiles(good[np.argsort(-scores[good])][:WORST]),
            ),
        ],
    )
    contact_sheet.write(
        path.with_name(f"{path.name}-heatmaps.png"),
        title,
        threshold,
        [("Defective parts", tiles(evenly(bad))), ("Good parts", tiles(evenly(good)))],
    )


def evenly(indices: Indices) -> Indices:
    """At most EACH of them, spread over the test set so that every defect has its turn."""
    chosen = np.unique(np.linspace(0, indices.size - 1, EACH).round().astype(int))
    return np.asarray(indices[chosen])


def _tile(engine: Engine, sample: Sample, roi: Roi | None) -> Tile:
    image = read_image(sample.path)
    scored = engine.score(image)
    return Tile(
        image=cropped(image, roi),
        map=scored.map,
        mask=sample_mask(sample, image.shape[:2], roi),
        name=f"{sample.defect or 'good'}/{sample.path.name}",
        score=scored.score,
        defective=sample.defective,
    )
