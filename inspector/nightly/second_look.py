"""What passed in the past, looked at once more by the bundle that judges now.

A part that a weaker bundle let through, and that the active one would reject, is a defect that nobody noticed
or a part that it is wrong about. Nobody knows which, so it is neither learned nor compared on.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from inspector.model.engine import Engine
from inspector.nightly.collect import PASSED, Picture, Selection
from training.data import read_image

DOUBTFUL = "rejected by the active bundle"  # why a picture is left out


def look_again(chosen: Selection, engine: Engine, threshold: float) -> None:
    """Take what would not pass any more out of the selection. Labels and people's choices stay."""
    passes = [one for one in (*chosen.learn, *chosen.apart) if one.why == PASSED]
    doubtful = {
        one.sha256
        for one in tqdm(passes, desc="second look", unit="part", leave=False)
        if not _passes(one, engine, threshold)
    }
    for place in (chosen.learn, chosen.apart):
        place[:] = [one for one in place if one.why != PASSED or one.sha256 not in doubtful]
    chosen.left_out[DOUBTFUL] += len(doubtful)


def _passes(one: Picture, engine: Engine, threshold: float) -> bool:
    return engine.score(read_image(Path(one.path))).score <= threshold
