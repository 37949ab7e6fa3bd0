"""Whether good parts come in different light, so that light is to be evened before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inspector.model.preprocess import DARKEST, highlight, picture
from inspector.model.records import Preprocessing
from training.data import read_image

LOOKED_AT = 100  # pictures
VARIES = 0.1  # standard deviation from part to part, in shares of the light: no lamp that is left alone does


def chosen(images: Sequence[Path], preprocessing: Preprocessing) -> str:
    """The exposure of these normal parts: "even" where brightness and highlights vary by more than VARIES.

    Both, or it is "as-is": where the highlights alone come and go the part shines, where the brightness alone
    does there is more or less of it in the picture; neither is light. Raises DataError, ModelError.
    """
    drawn = np.random.default_rng(0).permutation(len(images))[:LOOKED_AT]
    small = [picture(read_image(images[i]), preprocessing) for i in drawn]
    light = np.array([[one.mean(), highlight(one)] for one in small])
    least = DARKEST * np.iinfo(small[0].dtype).max
    return "even" if np.log(light.clip(min=least)).std(axis=0).min() > VARIES else "as-is"
