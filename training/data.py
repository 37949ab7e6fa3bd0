"""Folders of images, and the parts of a training run at the network's input size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from inspector.errors import DataError
from inspector.model.preprocess import Image, Normalise, picture
from inspector.model.records import Preprocessing

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
CACHE_BYTES = 4 << 30  # decoded pictures are kept in memory up to this much
DEVICE_SHARE = 0.25  # … and on a GPU as well, if they fit into this share of its free memory


def list_images(folder: Path) -> list[Path]:
    """The images in this folder, not below it, sorted by name. Raises DataError when there are none."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}; expected a folder of images")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror})") from error
    images = [path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not images:
        below = [path.name for path in entries if path.is_dir()]
        hint = f"; it has sub-folders ({', '.join(below[:5])}), name one of them" if below else ""
        raise DataError(f"{folder} holds no images: expected files named {', '.join(sorted(SUFFIXES))}{hint}")
    return images


def read_image(path: Path) -> Image:
    """(H, W) mono or (H, W, 3) RGB, uint8 or uint16; an alpha channel is dropped. Raises DataError."""
    return read_hashed(path)[0]


def read_hashed(path: Path) -> tuple[Image, str]:
    """The image and the SHA-256 of its file, from one reading. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if pixels is None:
        raise DataError(f"{path} is no image that OpenCV can decode, or cut short; remove or replace it")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path} has pixels of type {pixels.dtype}: expected 8 or 16 bit")
    if pixels.ndim == 3:
        order = cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(pixels, order)
    return cast(Image, pixels), hashlib.sha256(data).hexdigest()


def sha256(path: Path) -> str:
    """Of the file's bytes. Raises DataError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error


class Pictures(Sequence[Image]):
    """Parts as the network will see them: (S, S) or (S, S, 3) each, in their own depth.

    They are decoded once and kept in memory while all of them fit into CACHE_BYTES, and on the device that
    batches are asked for while they fit into DEVICE_SHARE of what it has free then. sha256: of the files.
    Raises DataError for a file that cannot be read, ModelError for an image that the ROI does not fit.
    """

    def __init__(
        self, files: Sequence[Path], preprocessing: Preprocessing, *, progress: bool = False
    ) -> None:
        self.files = list(files)
        self.preprocessing = preprocessing
        self.sha256: list[str] = []
        self._cache: list[Image] = []
        self._near: dict[torch.device, list[Tensor]] = {}  # pixels on the device; none where there is no room
        for path in tqdm(self.files, desc="reading", unit="image", leave=False, disable=not progress):
            image, digest = read_hashed(path)
            self.sha256.append(digest)
            small = picture(image, preprocessing)
            if small.nbytes * len(self.files) <= CACHE_BYTES:
                self._cache.append(small)
        if len(self._cache) < len(self.files):
            self._cache.clear()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image:  # type: ignore[override]  # slices are not needed
        if self._cache:
            return self._cache[index]
        return picture(read_image(self.files[index]), self.preprocessing)

    def batch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """These pictures as the network's input: (B, 3, S, S) float32."""
        normalise, near = Normalise(self.preprocessing, device), self._on(device)
        pixels = (near[i] if near else _pixels(self[i]).to(device) for i in indices)
        return torch.cat([normalise(one).contiguous() for one in pixels])

    def _on(self, device: torch.device) -> list[Tensor]:
        if device not in self._near:
            fit = bool(self._cache) and sum(image.nbytes for image in self._cache) <= room(device)
            self._near[device] = [_pixels(image).to(device) for image in self._cache] if fit else []
        return self._near[device]


def room(device: torch.device) -> int:
    """Bytes that data may take on this device; none on the CPU, where it is in memory already."""
    return int(DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _pixels(image: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image))
