"""Drawn structure without any photograph: noise, gratings, scattered shapes, random networks.

A family draws its parameters once and gives a drawer; every call of that draws another instance of the same
kind, as every ground surface is another and the same. Random networks after Baradad et al. (Learning to See
by Looking at Noise, NeurIPS 2021), scattered shapes after the dead leaves model (Lee et al. 2001).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

SIDE = 96  # pixels
Chance = np.random.Generator
Floats = NDArray[np.float32]
Drawer = Callable[[Chance], Floats]  # -> (2, SIDE, SIDE), two fields that go together


def network(chance: Chance) -> Drawer:
    """Noise through random convolutions, coarse to fine."""
    width, layers = int(chance.choice([8, 16, 24])), int(chance.integers(2, 6))
    first = max(3, SIDE >> (layers - 1))
    spread = np.sqrt(1 / (9 * width))
    weights = [_torch(chance.normal(0, spread, (width, width, 3, 3))) for _ in range(layers)]
    grain = 0.3 * np.exp(chance.normal(-0.5, 1, layers))
    same = _torch(chance.normal(size=(1, width, first, first))) * float(chance.choice([0, 0, 1]))

    def draw(chance: Chance) -> Floats:
        x = same + _torch(chance.normal(size=same.shape))
        for layer, weight in enumerate(weights):
            x = F.leaky_relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight), 0.2)
            x = x / (x.std() + 1e-6)
            if layer < layers - 1:
                side = SIDE if layer == layers - 2 else 2 * x.shape[-1]
                x = F.interpolate(x, (side, side), mode="bilinear")
                x = x + grain[layer] * _torch(chance.normal(size=(1, 1, side, side)))
        return np.asarray(x[0, :2].numpy(), np.float32)

    return draw


def spectrum(chance: Chance) -> Drawer:
    """Noise with a power law or a preferred wavelength, often with a direction, bent by a nonlinearity."""
    filters = [_filter(chance) for _ in range(2)]
    bends = [(int(chance.integers(5)), chance.uniform(-1, 1), chance.uniform(1, 8)) for _ in filters]

    def draw(chance: Chance) -> Floats:
        fields = []
        for power, (kind, at, steep) in zip(filters, bends, strict=True):
            f = standard(np.fft.irfft2(np.fft.rfft2(chance.normal(size=(SIDE, SIDE))) * power, (SIDE, SIDE)))
            bent = (f, np.tanh(steep * (f - at)), np.abs(f - at), np.maximum(f, at), np.sin(steep * f))
            fields.append(bent[kind])
        return np.asarray(fields, np.float32)

    return draw


def _filter(chance: Chance) -> NDArray[np.float64]:
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    turn, narrow = chance.uniform(0, np.pi), chance.choice([1, 1, chance.uniform(2, 12)])
    along = columns * np.cos(turn) + rows * np.sin(turn)
    across = rows * np.cos(turn) - columns * np.sin(turn)
    radius = np.hypot(along, narrow * across) + 0.5 / SIDE
    if chance.random() < 0.5:
        return np.asarray(radius ** -chance.uniform(0.5, 2.5))
    wanted = np.exp(chance.uniform(np.log(0.03), np.log(0.3)))
    return np.asarray(np.exp(-(((radius - wanted) / (wanted * chance.uniform(0.1, 0.6))) ** 2)) + 1e-3)


def grating(chance: Chance) -> Drawer:
    """One to three waves, straight or round, added, multiplied or the higher of them; often warped."""
    waves = [
        (
            chance.uniform(0, np.pi),
            np.exp(chance.uniform(np.log(4), np.log(40))),
            int(chance.integers(4)),
            chance.uniform(1, 6),
        )
        for _ in range(int(chance.integers(1, 4)))
    ]
    joined, warp = int(chance.integers(3)), chance.choice([0, chance.uniform(0, 4)])
    polar, jitter = chance.random() < 0.25, chance.uniform(0, 0.05)

    def draw(chance: Chance) -> Floats:
        y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
        if warp:
            y, x = (v + warp * _smooth(chance) for v in (y, x))
        if polar:
            row, column = chance.uniform(-0.2 * SIDE, 1.2 * SIDE, 2)
            y, x = np.hypot(y - row, x - column), np.arctan2(y - row, x - column) * SIDE / 3
        fields = []
        for turn, period, kind, steep in waves:
            phase = (x * np.cos(turn) + y * np.sin(turn)) / period * (1 + jitter * chance.normal())
            phase = phase + chance.random()
            sine = np.sin(2 * np.pi * phase)
            fields.append((sine, np.tanh(steep * sine), 2 * (phase % 1) - 1, 2 * np.abs(sine) - 1)[kind])
        whole = fields[0]
        for f in fields[1:]:
            whole = (whole + f, whole * f, np.maximum(whole, f))[joined]
        return np.asarray([whole, fields[-1]], np.float32)

    return draw


def leaves(chance: Chance) -> Drawer:
    """Shapes scattered over each other, with sizes from a power law."""
    shape, values = _shape(chance), chance.uniform(-1, 1, int(chance.integers(2, 6)))
    smallest = chance.uniform(2, 8)
    largest, power = smallest * chance.uniform(1.2, 6), chance.uniform(1, 3)
    cover, rings = chance.uniform(0.3, 2.5), chance.random() < 0.3
    turn, spread = chance.uniform(0, np.pi), chance.choice([0, 0.2, np.pi])

    def draw(chance: Chance) -> Floats:
        fields = np.stack([np.full((SIDE, SIDE), values[0]), np.zeros((SIDE, SIDE))]).astype(np.float32)
        area = 0.0
        while area < cover * SIDE**2:
            u = chance.random()
            radius = (smallest**-power + u * (largest**-power - smallest**-power)) ** (-1 / power)
            area += 2 * radius**2 + 20
            outline = shape(chance, radius, turn + spread * chance.normal(), chance.uniform(0, SIDE, 2))
            _lay(fields, outline, float(chance.choice(values)), chance.random(), radius / 5 if rings else 0)
        return fields

    return draw


def layout(chance: Chance) -> Drawer:
    """Shapes that lie the same in every instance, up to a little play: as parts do."""
    placed = [
        (
            _shape(chance),
            np.exp(chance.uniform(np.log(4), np.log(SIDE / 2))),
            chance.uniform(0, 2 * np.pi),
            chance.uniform(0, SIDE, 2),
            chance.uniform(-1, 1),
            chance.random(),
            chance.choice([0, 0, 0.2]),
        )
        for _ in range(int(chance.integers(4, 20)))
    ]
    play, ground = chance.uniform(0, 2), chance.uniform(-1, 1)

    def draw(chance: Chance) -> Floats:
        fields = np.stack([np.full((SIDE, SIDE), ground), np.zeros((SIDE, SIDE))]).astype(np.float32)
        shift = play * chance.normal(size=2)
        for shape, radius, turn, place, value, height, line in placed:
            same = np.random.default_rng(int(1e6 * height))  # a ragged outline is the same in each instance
            there = place + shift + 0.3 * play * chance.normal(size=2)
            outline = shape(same, radius, turn + 0.02 * play * chance.normal(), there)
            _lay(fields, outline, value, height, line * radius)
        return fields

    return draw


def function(chance: Chance) -> Drawer:
    """A random network from place to value (compositional pattern, Stanley 2007), seen from elsewhere."""
    width, layers = 16, int(chance.integers(2, 5))
    weights = [chance.normal(0, 0.6 * chance.uniform(1, 4), (5, width))]
    weights += [chance.normal(0, 0.5, (width, width)) for _ in range(layers)]
    out = chance.normal(size=(width, 2))
    kinds = [int(chance.integers(4)) for _ in weights]
    size, change = chance.uniform(0.5, 2), chance.uniform(0, 0.3)
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2, indexing="ij")

    def draw(chance: Chance) -> Floats:
        turn, zoom, right, down, other = chance.normal(size=5)
        c, s = np.cos(0.15 * turn) * size * np.exp(0.15 * zoom), np.sin(0.15 * turn) * size
        x, y = columns * c - rows * s + 0.6 * right, columns * s + rows * c + 0.6 * down
        f = np.stack([x, y, np.hypot(x, y), np.ones_like(x), np.full_like(x, change * other)], axis=-1)
        for weight, kind in zip(weights, kinds, strict=True):
            f = f @ weight
            f = (np.sin(f), np.tanh(f), np.abs(f), np.exp(-np.minimum(f**2, 50)))[kind]
        return np.asarray(np.moveaxis(f @ out, -1, 0), np.float32)

    return draw


FAMILIES = (network, spectrum, grating, leaves, layout, function)


def standard(f: NDArray[np.floating]) -> Floats:
    """Mean 0, standard deviation 1."""
    return np.asarray((f - f.mean()) / (f.std() + 1e-6), np.float32)


def _torch(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _smooth(chance: Chance) -> Floats:
    coarse = chance.normal(size=(5, 5)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.float32)


Shape = Callable[[Chance, float, float, NDArray[np.float64]], NDArray[np.int32]]


def _shape(chance: Chance) -> Shape:
    """Ellipse, polygon, star, bar or ragged polygon: radius, angle and centre to its outline, 1/16 px."""
    kind, sides = int(chance.integers(5)), int(chance.integers(3, 8))
    flat = float(chance.choice([1, chance.uniform(0.15, 0.9)]))
    angles = np.linspace(0, 2 * np.pi, (24, sides, 2 * sides, 4, sides)[kind], endpoint=False)
    outline = np.stack([np.cos(angles), flat * np.sin(angles)], axis=1)
    if kind == 2:
        outline[::2] *= 0.45
    if kind == 3:
        outline = np.array([[-1, -0.15], [1, -0.15], [1, 0.15], [-1, 0.15]])

    def placed(chance: Chance, radius: float, turn: float, centre: NDArray[np.float64]) -> NDArray[np.int32]:
        points = radius * outline
        if kind == 4:
            points = points * (1 + 0.25 * chance.normal(size=(len(points), 1)))
        c, s = np.cos(turn), np.sin(turn)
        moved = points @ np.array([[c, s], [-s, c]]) + centre
        return np.asarray(np.rint(moved * 16), np.int32)

    return placed


def _lay(fields: Floats, outline: NDArray[np.int32], value: float, height: float, line: float) -> None:
    """Fill the outline in both fields, or draw its line in the first where a width in pixels is given."""
    if line:
        cv2.polylines(fields[0], [outline], True, value, max(1, int(line)), cv2.LINE_AA, 4)
    else:
        cv2.fillPoly(fields[0], [outline], value, cv2.LINE_AA, 4)
    cv2.fillPoly(fields[1], [outline], height, cv2.LINE_AA, 4)
