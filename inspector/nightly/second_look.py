"""What passed in the past, looked at once more by the bundle that judges now.

A part that a weaker bundle let through, and that the active one would reject, may be a defect that nobody has
noticed. It is not learned. What is kept apart stays as it is: a gate that leaves out what the active bundle
rejects would favour that bundle, and a threshold without such parts would creep down.
"""

from __future__ import annotations

from math import isfinite

from tqdm import tqdm

from inspector.errors import DataError, ModelError
from inspector.model.engine import Engine
from inspector.nightly.collect import GONE, PASSED, Picture, Selection
from training.data import read_image

DOUBTFUL = "rejected by the active bundle"  # why a picture is left out


def look_again(chosen: Selection, engine: Engine, threshold: float) -> None:
    """Take what would not pass any more out of what is learned. Labels and people's choices stay.

    Raises ModelError for an engine that does not say what it said at calibration.
    """
    engine.self_test()
    kept = []
    for one in tqdm(chosen.learn, desc="second look", unit="part", leave=False):
        against = _against(one, engine, threshold) if one.why == PASSED else None
        if against is None:
            kept.append(one)
        else:
            chosen.left_out[against] += 1
    chosen.learn[:] = kept


def _against(one: Picture, engine: Engine, threshold: float) -> str | None:
    try:
        score = engine.score(read_image(one.file)).score
    except DataError:
        return GONE
    if not isfinite(score):
        raise ModelError(f"{one.path} scores {score} with the active bundle: expected a number")
    return None if score <= threshold else DOUBTFUL
