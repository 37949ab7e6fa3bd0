"""Whether good parts come in different light, so that light is to be evened before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from inspector.model.preprocess import DARKEST, Image, highlight, picture
from inspector.model.records import Preprocessing
from training.data import read_image

LOOKED_AT = 100  # pictures
VARIES = 0.1  # standard deviation from part to part, in shares of the light: no lamp that is left alone does
FEW = 0.05  # share of the pictures at either end that do not count: an empty frame is not another light
NORMAL = 3.29  # standard deviations that the rest spans where light is distributed normally


def chosen(images: Sequence[Path], preprocessing: Preprocessing, *, progress: bool = False) -> str:
    """The exposure of these normal parts: "even" where brightness and highlights vary by more than VARIES.

    Both, or it is "as-is": where the highlights alone come and go the part shines, where the brightness alone
    does there is more or less of it in the picture; neither is light. Raises DataError, ModelError.
    """
    drawn = np.random.default_rng(0).permutation(len(images))[:LOOKED_AT]
    looked_at = tqdm(drawn, desc="light", unit="image", leave=False, disable=not progress)
    light = np.log([_light(picture(read_image(images[i]), preprocessing)) for i in looked_at])
    low, high = np.quantile(light, (FEW, 1 - FEW), axis=0)
    return "even" if ((high - low) / NORMAL).min() > VARIES else "as-is"


def _light(image: Image) -> tuple[float, float]:
    """Brightness and highlights of a picture, in shares of white."""
    white = int(np.iinfo(image.dtype).max)
    return max(float(image.mean()) / white, DARKEST), max(highlight(image) / white, DARKEST)
