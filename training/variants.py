"""Parts as they might also lie, for methods that compute something once for every picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inspector.model.preprocess import Image, tensor
from training.data import Pictures
from training.painting import lying
from training.trial import eight_bit

COPIES = 2  # of each part, turned or mirrored at random


class Variants(Sequence[Image]):
    """The pictures; where a part has symmetries, then COPIES rounds of the same, each lying anew."""

    def __init__(self, pictures: Pictures, symmetries: Sequence[str], seed: int):
        self.pictures, self.symmetries, self.seed = pictures, symmetries, seed
        self.rounds = 1 + COPIES if symmetries else 1

    def __len__(self) -> int:
        return self.rounds * len(self.pictures)

    def __getitem__(self, index: int) -> Image:  # type: ignore[override]  # slices are not needed
        number, part = divmod(index, len(self.pictures))
        if number == 0:
            return self.pictures[part]
        image = eight_bit(self.pictures[part])
        rng = np.random.default_rng((self.seed, 8, index))
        return lying(image, np.ones(image.shape[:2], np.bool_), self.symmetries, rng)[0]

    def of(self, indices: Sequence[int]) -> list[int]:
        """Indices of these parts in all rounds."""
        return [number * len(self.pictures) + i for number in range(self.rounds) for i in indices]

    def drawn(self, indices: Sequence[int], rng: np.random.Generator) -> list[int]:
        """These parts, each from a round drawn at random."""
        return [int(rng.integers(self.rounds)) * len(self.pictures) + i for i in indices]

    def batch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """These pictures as the network's input: (B, 3, S, S) float32."""
        return torch.cat([tensor(self[i], self.pictures.preprocessing, device) for i in indices])
