"""What can be wrong with a demo part. Each kind changes a Surface and marks where in its mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.demo import surface as flange
from inspector.demo.surface import Map, Surface, grid, machine, smooth

Point = tuple[float, float]


def damaged(kind: str, size: int, generator: np.random.Generator) -> Surface:
    """A surface with one defect of the kind, its mask set."""
    return KINDS[kind](size, generator)


def _scratch(size: int, generator: np.random.Generator) -> Surface:
    """One or two shallow, slightly bent grooves with bright flanks."""
    part = machine(size)
    x, y = _spot(generator, 0.035)
    heading = generator.uniform(0, 2 * math.pi)
    for _ in range(generator.integers(1, 3)):
        length, bend = generator.uniform(0.12, 0.24), generator.uniform(-0.8, 0.8)
        steps = np.linspace(-0.5, 0.5, 24)
        angles = heading + bend * steps
        path = np.stack(
            [x + length * np.cumsum(np.cos(angles)) / 24, y + length * np.cumsum(np.sin(angles)) / 24], 1
        )
        groove = _stroke(part, path - path.mean(0) + (x, y), 0.0052, taper=True)
        part.height -= 0.004 * groove
        part.albedo *= 1 + 0.9 * groove
        part.gloss *= 1 - 0.8 * groove
        part.mask |= groove > 0.3
        x, y = x + generator.uniform(-0.03, 0.03), y + generator.uniform(-0.03, 0.03)
        heading += generator.uniform(-0.12, 0.12)
    return part


def _dent(size: int, generator: np.random.Generator) -> Surface:
    """A blow: a shallow bowl with a raised lip."""
    part = machine(size)
    x, y = _spot(generator, 0.03)
    g = grid(size)
    turn, stretch = generator.uniform(0, math.pi), generator.uniform(1.0, 1.5)
    dx, dy = g.x - np.float32(x), g.y - np.float32(y)
    u = (math.cos(turn) * dx + math.sin(turn) * dy) / stretch
    v = -math.sin(turn) * dx + math.cos(turn) * dy
    r = np.hypot(u, v) / np.float32(generator.uniform(0.021, 0.032))
    bowl = np.exp(-(r**2))
    part.height += 0.0095 * (0.3 * np.exp(-((r - 1.5) ** 2) / 0.2) - bowl)
    part.gloss *= 1 - 0.35 * bowl
    part.mask |= r < 1.8
    return part


def _missing_hole(size: int, generator: np.random.Generator) -> Surface:
    """A bolt hole that was never drilled; now and then the centre punch shows."""
    index = int(generator.integers(len(flange.BOLT_ANGLES)))
    part = machine(size, missing=index)
    g = grid(size)
    x, y = flange.bolt_centre(index)
    distance = np.hypot(g.x - np.float32(x), g.y - np.float32(y))
    if generator.random() < 0.5:
        part.height -= 0.008 * np.exp(-((distance / 0.009) ** 2))
    part.mask |= distance < flange.BOLT + flange.CHAMFER
    return part


def _crack(size: int, generator: np.random.Generator) -> Surface:
    """A dark, jagged line that runs from an edge into the metal and forks."""
    part = machine(size)
    if generator.random() < 0.5:
        hole = int(generator.integers(len(flange.BOLT_ANGLES)))
        cx, cy = flange.bolt_centre(hole)
        heading = flange.BOLT_ANGLES[hole] + math.pi + generator.uniform(-0.9, 0.9)
        start = (cx + flange.BOLT * math.cos(heading), cy + flange.BOLT * math.sin(heading))
    else:
        angle = generator.uniform(0, 2 * math.pi)
        heading = angle + generator.uniform(-0.3, 0.3)
        start = (flange.BORE * math.cos(angle), flange.BORE * math.sin(angle))
    trunk = _walk(generator, start, heading, generator.uniform(0.10, 0.15))
    line = _stroke(part, trunk, 0.0046, taper=True)
    fork = trunk[int(generator.integers(len(trunk) // 3, 2 * len(trunk) // 3))]
    side = generator.choice((-0.7, 0.7))
    line = np.maximum(
        line, _stroke(part, _walk(generator, tuple(fork), heading + side, 0.05), 0.0030, taper=True)
    )
    line *= part.metal
    part.height -= 0.006 * line
    part.albedo *= 1 - 0.85 * line
    part.mask |= line > 0.3
    return part


def _stain(size: int, generator: np.random.Generator) -> Surface:
    """Oil: an irregular film that dims the highlight, browns the metal and dries to a rim."""
    part = machine(size)
    x, y = _spot(generator, 0.03)
    film = _blob(size, generator, x, y, generator.uniform(0.032, 0.055), 0.4)
    angle = generator.uniform(0, 2 * math.pi)
    reach = generator.uniform(0.05, 0.09)
    drop = _blob(size, generator, x + reach * math.cos(angle), y + reach * math.sin(angle), 0.013, 0.3)
    depth = np.maximum(film, drop)
    cover = smooth(0.02, depth + np.float32(0.003)) * part.metal
    rim = np.exp(-((depth - 0.004) ** 2) / np.float32(2 * 0.003**2)) * part.metal
    part.oil += 0.85 * cover
    part.albedo *= 1 - 0.42 * cover - 0.10 * rim
    part.gloss *= 1 - 0.30 * cover
    part.mask |= cover > 0.2
    return part


def _chip(size: int, generator: np.random.Generator) -> Surface:
    """A piece broken out of the rim, with a rough, steep fracture."""
    part = machine(size)
    angle = generator.uniform(0, 2 * math.pi)
    x, y = (flange.OUTER + 0.006) * math.cos(angle), (flange.OUTER + 0.006) * math.sin(angle)
    bite = _blob(size, generator, x, y, generator.uniform(0.022, 0.034), 0.45)
    before = part.metal.copy()
    part.metal *= 1 - np.clip(bite * part.metal.shape[0] + 0.5, 0, 1)
    fracture = smooth(0.014, bite + np.float32(0.014))
    rough = _noise(generator, part.metal.shape[0], 96)
    part.height -= (0.018 + 0.003 * rough) * fracture
    part.gloss *= 1 - 0.7 * fracture
    part.albedo *= 1 + 0.25 * fracture * rough
    part.mask |= (before > 0.5) & (fracture > 0.25)
    return part


def _burr(size: int, generator: np.random.Generator) -> Surface:
    """Metal left standing at a bolt hole: a ragged bright lip that narrows it."""
    part = machine(size)
    g = grid(size)
    x, y = flange.bolt_centre(int(generator.integers(len(flange.BOLT_ANGLES))))
    dx, dy = g.x - np.float32(x), g.y - np.float32(y)
    angle = np.arctan2(dy, dx)
    away = np.abs((angle - generator.uniform(-math.pi, math.pi) + math.pi) % (2 * math.pi) - math.pi)
    sector = smooth(0.5, generator.uniform(0.9, 1.4) - away.astype(np.float32))
    teeth = generator.uniform(0.25, 1, 40)
    ragged = np.interp(angle, np.linspace(-math.pi, math.pi, 41), np.append(teeth, teeth[0]))
    depth = (np.hypot(dx, dy) - flange.BOLT + 0.017 * ragged * sector).astype(np.float32)
    lip = (
        np.clip(depth * part.metal.shape[0] + 0.5, 0, 1)
        * (np.hypot(dx, dy) < flange.BOLT + 0.008)
        * (sector > 0)
    )
    grown = np.maximum(part.metal, lip)
    curl = np.exp(-((np.hypot(dx, dy) - flange.BOLT + 0.003) ** 2) / np.float32(2 * 0.0055**2)) * sector
    part.height += (0.012 + 0.004 * _noise(generator, part.metal.shape[0], 128)) * curl
    part.albedo *= 1 + 0.35 * curl
    part.mask |= (grown - part.metal > 0.5) | (curl > 0.4)
    part.metal = grown
    return part


def _mark(size: int, generator: np.random.Generator) -> Surface:
    """An engraving that is missing, that says something else, or that was struck twice."""
    line = int(generator.integers(2))
    right = [flange.mark(size, i, text) for i, text in enumerate(flange.MARKS)]
    fault = int(generator.integers(3))
    if fault == 0:
        wrong = np.zeros_like(right[line])
    elif fault == 1:
        wrong = flange.mark(size, line, ("DN32 PN40", "1.0038")[line])
    else:
        n = right[line].shape[0]
        shift = cv2.getRotationMatrix2D((n / 2, n / 2), generator.choice((-3.2, 3.2)), 0.985)
        wrong = np.maximum(right[line], cv2.warpAffine(right[line], shift, (n, n)))
    part = machine(size, marks=np.maximum(right[1 - line], wrong))
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    part.mask |= cv2.dilate((np.abs(wrong - right[line]) > 0.3).astype(np.uint8), reach) > 0
    return part


KINDS: dict[str, Callable[[int, np.random.Generator], Surface]] = {
    "scratch": _scratch,
    "dent": _dent,
    "missing_hole": _missing_hole,
    "crack": _crack,
    "stain": _stain,
    "chip": _chip,
    "burr": _burr,
    "mark": _mark,
}


def _spot(generator: np.random.Generator, margin: float) -> Point:
    """A place on the metal that is at least `margin` from every edge and from the raised face's step."""
    while True:
        radius = generator.uniform(flange.BORE + margin, flange.OUTER - margin)
        angle = generator.uniform(0, 2 * math.pi)
        x, y = radius * math.cos(angle), radius * math.sin(angle)
        holes = (math.dist((x, y), flange.bolt_centre(i)) for i in range(len(flange.BOLT_ANGLES)))
        if min(holes) > flange.BOLT + margin and abs(radius - flange.FACE) > margin / 2:
            return x, y


def _stroke(part: Surface, path: NDArray[np.float64], width: float, *, taper: bool) -> Map:
    """Coverage of a line through the points of `path` (K, 2), as wide as `width` in the middle."""
    n = part.metal.shape[0]
    canvas = np.zeros((n, n), np.uint8)
    points = np.round((path + 0.5) * n * 16).astype(int)
    for i in range(len(points) - 1):
        rest = 1 - abs(2 * i / (len(points) - 1) - 1) ** 3 if taper else 1.0
        thickness = max(1, round(width * n * (0.35 + 0.65 * rest)))
        cv2.line(canvas, points[i].tolist(), points[i + 1].tolist(), 255, thickness, cv2.LINE_AA, 4)
    return np.asarray(canvas.astype(np.float32) / 255 * (part.metal > 0), np.float32)


def _walk(generator: np.random.Generator, start: Point, heading: float, length: float) -> NDArray[np.float64]:
    """A jagged path (K, 2)."""
    steps = max(8, round(length / 0.006))
    angles = (
        heading + 0.55 * generator.standard_normal(steps) + np.cumsum(0.12 * generator.standard_normal(steps))
    )
    offsets = np.stack([np.cos(angles), np.sin(angles)], 1) * (length / steps)
    return np.concatenate([np.array([start]), np.array(start) + np.cumsum(offsets, 0)])


def _blob(
    size: int, generator: np.random.Generator, x: float, y: float, radius: float, waviness: float
) -> Map:
    """Depth inside an irregular outline: positive inside, negative outside, as a length."""
    g = grid(size)
    dx, dy = g.x - np.float32(x), g.y - np.float32(y)
    angle = np.arctan2(dy, dx)
    outline = np.ones_like(angle)
    for k in range(2, 6):
        outline += np.float32(waviness / k * generator.standard_normal()) * np.cos(
            k * angle + np.float32(generator.uniform(0, 6.3))
        )
    return np.asarray(radius * np.clip(outline, 0.35, 1.8) - np.hypot(dx, dy), np.float32)


def _noise(generator: np.random.Generator, n: int, cells: int) -> Map:
    """Smooth noise (n, n), about ±1, with `cells` bumps across."""
    coarse = generator.standard_normal((cells, cells), np.float32)
    return np.asarray(cv2.resize(coarse, (n, n), interpolation=cv2.INTER_CUBIC), np.float32)
