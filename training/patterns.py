"""Kinds of drawn surfaces to learn features from: fields put together, coloured, lit.

A pattern is what in photographs would be a class: its instances differ as one piece of leather, one casting,
one transistor does from the next.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.fields import FAMILIES, SIDE, Chance, Floats, standard

Image = NDArray[np.uint8]


class Pattern:
    """The kind of surface that a number stands for."""

    def __init__(self, number: int):
        chance = np.random.default_rng((number, 9))
        self.number = number
        self.first, self.second = (FAMILIES[int(chance.integers(len(FAMILIES)))](chance) for _ in range(2))
        self.joined = int(chance.choice([0, 0, 0, 1, 2, 3]))  # nothing, inlay, sum, holes
        self.at, self.share = chance.uniform(-0.8, 0.8), chance.uniform(0.2, 1)
        self.palette = _palette(chance)
        self.relief = np.exp(chance.uniform(-1.5, 1)) if chance.random() < 0.4 else 0.0
        self.light, self.gloss = chance.uniform(0, 2 * np.pi), chance.choice([0, chance.uniform(0, 0.6)])
        self.contrast, self.level = chance.uniform(0.07, 0.28), chance.uniform(0.25, 0.75)
        self.grain = chance.choice([0, chance.uniform(0, 0.06)])

    def draw(self, instance: int) -> Image:
        """(SIDE, SIDE, 3) uint8 RGB; the same for the same instance."""
        chance = np.random.default_rng((self.number, 10, instance))
        colour, height = self._fields(chance)
        image = self._coloured(colour)
        if self.relief:
            image = self._lit(image, height)
        image = standard(image) * self.contrast + self.level
        image = image + self.grain * chance.normal(size=(SIDE, SIDE, 1))
        return np.asarray(np.clip(image, 0, 1) * 255, np.uint8)

    def _fields(self, chance: Chance) -> tuple[Floats, Floats]:
        colour, height = (standard(f) for f in self.first(chance))
        if not self.joined:
            return colour, height
        other, mask = (standard(f) for f in self.second(chance))
        if self.joined == 1:
            colour = np.where(height > self.at, colour, 0.7 * other + self.share)
        elif self.joined == 2:
            colour = colour + self.share * other
        else:
            colour = np.where(mask > self.at, colour, np.float32(2 * self.share - 1))
        return standard(colour), mask

    def _coloured(self, field: Floats) -> Floats:
        place = np.clip(0.25 * field + 0.5, 0, 1) * (len(self.palette) - 1)
        steps = np.arange(len(self.palette))
        return np.stack([np.interp(place, steps, c) for c in self.palette.T], axis=-1).astype(np.float32)

    def _lit(self, image: Floats, height: Floats) -> Floats:
        """Lambert's law and a highlight, the field taken for a height."""
        rows, columns = np.gradient(self.relief * cv2.GaussianBlur(height, (0, 0), 1))
        slope = columns * np.cos(self.light) + rows * np.sin(self.light)
        lit = (1 - 0.6 * slope) / np.sqrt(1 + rows**2 + columns**2)
        shone = image * np.clip(lit, 0, 2)[..., None] + self.gloss * np.clip(lit - 1, 0, 1)[..., None] ** 2
        return np.asarray(shone, np.float32)


def _palette(chance: Chance) -> NDArray[np.float64]:
    """Two to five colours, (n, 3) in [0, 1]; half of all palettes are grey."""
    colours = chance.uniform(0, 1, (int(chance.integers(2, 6)), 3))
    grey = colours.mean(axis=1, keepdims=True)
    strength = 0.0 if chance.random() < 0.5 else chance.uniform(0.2, 1)
    colours = grey + strength * (colours - grey)
    for k in range(1, len(colours)):  # neighbours that can be told apart
        colours[k] += 0.15 * np.sign(colours[k].mean() - colours[k - 1].mean())
    return np.asarray(colours)
