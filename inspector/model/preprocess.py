"""From a camera's picture to the network's input. Training and engine both come through here.

Resizing is done on the host by OpenCV, in the picture's own depth: the picture that the network sees is the
same to the bit on every device, and what training keeps in memory is what the engine will compute.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspector.errors import ModelError
from inspector.model.records import Preprocessing

HIGHLIGHTS = 0.02  # share of a picture's values that are white in even light
DARKEST = 0.02  # of white: below it highlights are noise, and the gain ends

Image = NDArray[np.uint8] | NDArray[np.uint16]


def picture(image: Image, preprocessing: Preprocessing) -> Image:
    """The ROI, resized to (S, S) or (S, S, 3), antialiased, in even light if asked; depth and channels stay.

    image: (H, W) mono or (H, W, 3) RGB, uint8 or uint16. The aspect ratio is not kept.
    Raises ModelError for another shape or dtype, or when the ROI reaches out of the image.
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise ModelError(f"image has dtype {image.dtype}: expected uint8 or uint16")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or image.size == 0:
        raise ModelError(f"image has shape {image.shape}: expected (H, W) mono or (H, W, 3) RGB")
    if preprocessing.roi is not None:
        x, y, width, height = preprocessing.roi
        if x + width > image.shape[1] or y + height > image.shape[0]:
            raise ModelError(
                f"roi {preprocessing.roi} (x, y, width, height) reaches out of the image of "
                f"{image.shape[1]} x {image.shape[0]} pixels; correct the roi or the camera's image size"
            )
        image = image[y : y + height, x : x + width]
    small = _resize(image, preprocessing.size)
    return evened(small) if preprocessing.exposure == "even" else small


def _resize(image: Image, size: int) -> Image:
    """Axes that shrink are averaged first (INTER_AREA does so only where no axis grows), others follow."""
    h, w = image.shape[:2]
    shrunk = (min(w, size), min(h, size))
    resized: Any = image  # cv2 keeps the dtype, its types do not say so
    if shrunk != (w, h):
        resized = cv2.resize(resized, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (size, size):
        resized = cv2.resize(resized, (size, size), interpolation=cv2.INTER_LINEAR)
    return cast(Image, resized)


def evened(image: Image) -> Image:
    """Brightened until HIGHLIGHTS of its values are white; below, colours keep their ratios.

    A shorter exposure then changes nothing that the network sees, and a defect in the dark has the contrast
    that it has in the light. A picture that is black but for noise stays dark, one overexposed as it is.
    """
    white = int(np.iinfo(image.dtype).max)
    brightened = np.arange(white + 1) * (white / max(highlight(image), DARKEST * white))
    table = np.minimum(np.rint(brightened), white).astype(image.dtype)
    return cast(Image, np.take(table, image, mode="clip"))


def highlight(image: Image) -> int:
    """The value that only HIGHLIGHTS of the picture's values pass."""
    white = int(np.iinfo(image.dtype).max)
    flat: Any = np.ascontiguousarray(image).reshape(len(image), -1)  # cv2 takes both depths
    counts = cv2.calcHist([flat], [0], None, [white + 1], [0, white + 1]).cumsum(dtype=np.float64)
    return int(np.searchsorted(counts, (1 - HIGHLIGHTS) * flat.size))


def tensor(small: Image, preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """The network's input (1, 3, S, S) float32 from what picture() made; mono fills all three channels."""
    pixels = torch.from_numpy(np.ascontiguousarray(small)).to(device)
    return Normalise(preprocessing, device)(pixels).contiguous()


class Normalise:
    """The part of it that runs on the device: pixels (S, S) or (S, S, 3), uint8 or uint16, to the input."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device):
        # for a whole line of pixels: an inner loop over three channels costs ten times as much
        self.mean = torch.tensor(preprocessing.mean, device=device).repeat(preprocessing.size)
        self.std = torch.tensor(preprocessing.std, device=device).repeat(preprocessing.size)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(1, 3, S, S) float32, channels last as they come from a camera."""
        white = 255.0 if pixels.dtype == torch.uint8 else 65535.0
        x = pixels.float() / white
        x = x[:, :, None].expand(-1, -1, 3) if x.ndim == 2 else x
        lines = (x.flatten(1) - self.mean) / self.std
        return lines.view(len(lines), -1, 3).permute(2, 0, 1)[None]
