"""A night from the active weights against one from scratch: `python -m tests.warm [--seeds 5] [--epochs 25]`.

Parts and defects are drawn (tests/inspector/nightly_station.py), the method is the paper's. The active bundle
has learned 40 parts for as many epochs as a night from scratch takes; each night learns from 60. Image AUROC
is of the candidate, promoted or not, on 100 normal parts and 100 defects that nothing else has seen.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

from inspector.errors import RefusedError
from inspector.judges import active_bundle, open_engine
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.nightly import priority
from inspector.nightly.retrain import retrain
from inspector.settings import Settings, load
from tests.inspector.nightly_station import inspect, part, prepare
from training.metrics import image_auroc

TESTED = 100  # of each class


def auroc(settings: Settings, bundle: Bundle) -> float:
    engine, rng = open_engine(bundle, settings.engine), np.random.default_rng(77)
    labels = [number % 2 == 1 for number in range(2 * TESTED)]
    return image_auroc(labels, [engine.score(part(rng, defect=defect)).score for defect in labels])


def night(settings: Settings, seed: int, epochs: int, start: str) -> tuple[Bundle, str]:
    """The candidate, and what the gate said."""
    models = settings.models / "part"
    before = {one.id for one in bundles.listing(models)}
    try:
        list(retrain(settings, ["part"], epochs=epochs, seed=seed, start=start))
        said = "promoted"
    except RefusedError:
        said = "refused"
    return next(one for one in bundles.listing(models) if one.id not in before), said


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=25)
    asked = parser.parse_args()
    priority.lower = lambda: None
    found: dict[str, list[tuple[float, float]]] = {"active": [], "scratch": [], "warm": []}
    print("| seed | start | seconds of training | AUROC | gate |\n|---|---|---|---|---|")
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory(prefix="inspector-warm-") as folder:
            first = Path(folder) / "first"
            first.mkdir()
            station = prepare(first, epochs=asked.epochs)
            inspect(station, 150, 3 + seed)
            for start in found:
                place = Path(folder) / start
                shutil.copytree(first, place)
                settings = load(place / station.config.name)
                bundle, said = active_bundle(settings, "part"), "–"
                if start != "active":
                    bundle, said = night(settings, seed, asked.epochs, start)
                seconds, reached = bundle.provenance["seconds"], auroc(settings, bundle)
                found[start].append((seconds, reached))
                print(f"| {seed} | {start} | {seconds:.1f} | {reached:.3f} | {said} |", flush=True)
    for start, values in found.items():
        seconds, reached = np.mean(values, 0)
        print(f"| mean | {start} | {seconds:.1f} | {reached:.3f} ± {np.std(values, 0)[1]:.3f} | |")


if __name__ == "__main__":
    main()
