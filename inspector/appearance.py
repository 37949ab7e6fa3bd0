"""What light and lens make of a picture, so that a dirty lens is told from a changed part."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.audit.records import Measures, Region

SIDE = 256  # pixels of the square that is measured, about what the models see
BRIGHTEST = 0.001  # share of the pixels that lie above the highlight
DARK = 1 / 255  # below it nothing is relative to the brightness

Image = NDArray[np.uint8] | NDArray[np.uint16]


def measure(image: Image, region: Region | None) -> Measures:
    """Brightness, the mean grey, sharpness, the variance of the Laplacian, and highlight, the grey that only
    BRIGHTEST of the pixels pass, of the region on a small copy.

    image: (H, W) mono or (H, W, 3) RGB, uint8 or uint16. Grey runs from 0 to 1; sharpness is relative to
    brightness², so that more light alone is no sharper picture. All are those of the picture at SIDE x SIDE
    pixels: what is too fine for the models is too fine here. Where parts differ in their own grey, the mean
    says little of the light; what shines most on each of them is often much the same.
    """
    x, y, width, height = region or (0, 0, image.shape[1], image.shape[0])
    small: Any = cv2.resize(image[y : y + height, x : x + width], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if small.ndim == 3:
        small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    grey = small.astype(np.float32) / np.iinfo(image.dtype).max
    brightness = float(grey.mean())
    contrast = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    highlight = float(np.quantile(grey, 1 - BRIGHTEST))
    return Measures(brightness, contrast / max(brightness, DARK) ** 2, highlight)
