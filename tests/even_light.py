"""What is left of image AUROCs where the light tells good from bad: `python -m tests.even_light --data SETS`.

Every test picture is scored by each bundle that the benchmark has left under results/models, as it is and
multiplied by what brings its mean to that of the training pictures. Light alone then tells nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.engine import Engine
from training.data import read_image
from training.datasets import Category, find
from training.metrics import bootstrap, image_auroc

Picture = NDArray[np.generic]


def evened(image: Picture, mean: float) -> Picture:
    """The picture with this mean, as far as its type holds it: white stays white."""
    most = np.iinfo(image.dtype).max
    return np.clip(np.rint(image * (mean / max(image.mean(), 1e-6))), 0, most).astype(image.dtype)


def bundles_of(results: Path, category: Category) -> dict[str, Bundle]:
    """The newest bundle of each run of the benchmark on this category, by the run's name."""
    folder = results / "models" / category.dataset / category.name
    found = {run.name: bundles.listing(run) for run in sorted(folder.glob("*-seed*"))}
    if not any(found.values()):
        raise SystemExit(f"{folder} has no bundles: run python -m training.benchmark with this --out first.")
    return {name: of_run[-1] for name, of_run in found.items() if of_run}


def scores(engine: Engine, category: Category, mean: float) -> NDArray[np.float64]:
    """(2, n): of each test picture as it is, and evened."""
    found = []
    for sample in tqdm(category.test, unit="part", leave=False):
        image = read_image(sample.path)
        found.append([engine.score(image).score, engine.score(evened(image, mean)).score])
    return np.array(found).T


def told(labels: Sequence[bool], values: NDArray[np.float64]) -> str:
    low, high = bootstrap(image_auroc, labels, values)
    return f"{image_auroc(labels, values):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of categories in the MVTec layout")
    parser.add_argument("--dataset", help="what the benchmark called it (default: its folder's name)")
    parser.add_argument("--categories", nargs="+", default=["mvtec_screw"])
    parser.add_argument("--results", type=Path, default=Path("results"), help="the benchmark's --out")
    asked = parser.parse_args()
    print("| set | run | image AUROC | with evened light |\n|---|---|---|---|")
    for category in find(asked.data, asked.categories, asked.dataset):
        mean = float(np.mean([read_image(path).mean() for path in category.normals]))
        labels = [sample.defective for sample in category.test]
        for run, bundle in bundles_of(asked.results, category).items():
            plain, even = scores(Engine(bundle, "cpu", threads=1), category, mean)
            print(f"| {category.name} | {run} | {told(labels, plain)} | {told(labels, even)} |", flush=True)


if __name__ == "__main__":
    main()
