"""The demo's product as a surface: a turned steel flange, DN40 PN16 (proportions of EN 1092-1 type 01).

Everything lives in the part's own frame: (N, N) float32 maps over [-0.5, 0.5]², N twice the picture's
side so that edges are averaged, not stepped. Lengths are fractions of the picture's side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

OVERSAMPLING = 2
OUTER, FACE, BORE = 0.415, 0.243, 0.122  # radii: disc, raised face, bore
BOLT_CIRCLE, BOLT = 0.326, 0.046
BOLT_ANGLES = tuple(math.radians(45 + 90 * i) for i in range(4))
MARKS = ("DN40 PN16", "1.4404")  # engraved at twelve and at six o'clock
CHAMFER, SLOPE = 0.011, 0.55  # width and slope of every broken edge
MARK_RADIUS, MARK_HEIGHT, MARK_DEPTH = 0.328, 0.046, 0.0035
SERRATION = 0.0135  # pitch of the grooves that hold a gasket
POLAR = (640, 96)  # radial × angular cells of the turning texture, radius up to 0.75
WALL = 0.07  # share by which the far end of a through hole looks smaller
LIGHTS = ((-0.62, 1.0, 0.16), (2.35, 0.55, 0.23))  # bar lights: azimuth, strength, highlight width
TILT = 0.42  # in-plane part of the half vector between camera and bar light


@dataclass
class Surface:
    """What light and camera meet; defects change these maps and own up in `mask`."""

    height: Map
    metal: Map  # coverage: 1 metal, 0 open
    albedo: Map
    gloss: Map  # strength of highlights and of turning marks
    oil: Map  # 0 dry, 1 covered
    inside: Map  # coverage of the walls seen through holes
    wall: Map  # their luminance
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Coordinates of every map pixel."""

    x: Map
    y: Map
    radius: Map
    cos: Map
    sin: Map
    columns: Map  # where the pixel lies in a POLAR texture
    rows: Map


def smooth(edge: float, distance: Map) -> Map:
    """0 to 1 while a distance goes from 0 to `edge`, with no kink at either end."""
    t = np.clip(distance / np.float32(edge), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def bolt_centre(index: int) -> tuple[float, float]:
    """Where a bolt hole is, (x, y)."""
    angle = BOLT_ANGLES[index]
    return BOLT_CIRCLE * math.cos(angle), BOLT_CIRCLE * math.sin(angle)


@lru_cache(maxsize=4)
def grid(size: int) -> Grid:
    """Coordinates for pictures of size × size."""
    n = size * OVERSAMPLING
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    columns = (np.arctan2(y, x) / (2 * math.pi) + 0.5) * POLAR[1]
    rows = radius * (POLAR[0] / 0.75)
    safe = np.maximum(radius, 1e-6)
    return Grid(*(_frozen(values) for values in (x, y, radius, x / safe, y / safe, columns, rows)))


@lru_cache(maxsize=16)
def engraving(size: int, text: str, angle: float) -> Map:
    """Coverage of a text engraved along the marking circle, centred at `angle` (radians, y down)."""
    g = grid(size)
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), _ = cv2.getTextSize(text, font, 1.0, 3)
    strip = np.zeros((height * 3, width + 2 * height), np.uint8)
    cv2.putText(strip, text, (height, height * 2), font, 1.0, 255, 3, cv2.LINE_AA)
    unit = MARK_HEIGHT / height  # length of one strip pixel
    outward = math.sin(angle) < 0  # letters stand on the side that reads upright
    arc = np.arctan2(g.y, g.x) - np.float32(angle)
    arc = (arc + math.pi) % (2 * math.pi) - math.pi
    along = arc * MARK_RADIUS / unit * (1 if outward else -1) + strip.shape[1] / 2
    across = (g.radius - MARK_RADIUS) / unit * (-1 if outward else 1) + strip.shape[0] / 2
    bent = cv2.remap(strip, along.astype(np.float32), across.astype(np.float32), cv2.INTER_LINEAR)
    return _frozen(bent / 255)


def mark(size: int, line: int, text: str) -> Map:
    """Coverage of a text in the place of the first or second of MARKS."""
    return engraving(size, text, -math.pi / 2 if line == 0 else math.pi / 2)


@lru_cache(maxsize=16)
def _machined(size: int, missing: int | None) -> tuple[Map, Map, Map, Map]:
    """Height, metal, inside and wall of a part without marks; `missing`: a hole never drilled."""
    g = grid(size)
    pixel = 1 / g.x.shape[0]
    height = 0.8 * _bevel(CHAMFER, FACE - g.radius) + 0.7 * _bevel(CHAMFER * 1.5, OUTER - g.radius)
    metal = np.clip((OUTER - g.radius) / pixel + 0.5, 0, 1)
    inside, wall = np.zeros_like(g.x), np.zeros_like(g.x)
    holes = [(0.0, 0.0, BORE, CHAMFER)]
    holes += [(*bolt_centre(i), BOLT, CHAMFER * 0.8) for i in range(len(BOLT_ANGLES)) if i != missing]
    for cx, cy, r, chamfer in holes:
        dx, dy = g.x - np.float32(cx), g.y - np.float32(cy)
        distance = np.hypot(dx, dy)
        height += SLOPE * (_bevel(chamfer, distance - r) - chamfer)
        metal *= np.clip((distance - r) / pixel + 0.5, 0, 1)
        far = np.hypot(g.x - np.float32(cx * (1 - WALL)), g.y - np.float32(cy * (1 - WALL)))
        seen = np.clip((far - r * (1 - WALL)) / pixel + 0.5, 0, 1)
        facing = -(dx * math.cos(LIGHTS[0][0]) + dy * math.sin(LIGHTS[0][0])) / np.maximum(distance, 1e-6)
        hole = distance < r + 2 * pixel
        inside = np.where(hole, seen, inside)
        wall = np.where(hole, 0.05 + 0.16 * np.clip(facing, 0, 1), wall)
    return _frozen(height), _frozen(metal), _frozen(inside), _frozen(wall)


@lru_cache(maxsize=4)
def _finish(size: int) -> Map:
    """Serrations of the raised face and the shade at the foot of its step."""
    radius = grid(size).radius
    serrated = 0.07 * np.cos(radius * np.float32(2 * math.pi / SERRATION)) * (radius < FACE - CHAMFER)
    foot = 0.38 * np.exp(-(((radius - FACE - 0.004) / np.float32(0.0055)) ** 2))
    return _frozen(1 + serrated - foot)


def _bevel(width: float, distance: Map) -> Map:
    """A straight chamfer of slope 1: 0 at the edge, `width` from there on."""
    return np.asarray(np.clip(distance, 0, np.float32(width)), np.float32)


def _frozen(values: NDArray[np.floating[Any]]) -> Map:
    """Cached maps are shared: writing to one is a bug."""
    shared = values.astype(np.float32)
    shared.flags.writeable = False
    return shared


@lru_cache(maxsize=4)
def _marks(size: int) -> Map:
    return _frozen(np.maximum(mark(size, 0, MARKS[0]), mark(size, 1, MARKS[1])))


def machine(size: int, *, missing: int | None = None, marks: Map | None = None) -> Surface:
    """A part as it leaves the lathe, fresh arrays that may be changed."""
    height, metal, inside, wall = _machined(size, missing)
    engraved = _marks(size) if marks is None else marks
    return Surface(
        height=height - MARK_DEPTH * engraved,
        metal=metal.copy(),
        albedo=_finish(size) * (1 - 0.62 * engraved),
        gloss=1 - 0.6 * engraved,
        oil=np.zeros_like(height),
        inside=inside,
        wall=wall,
        mask=np.zeros(height.shape, bool),
    )


def shade(surface: Surface, generator: np.random.Generator) -> Map:
    """Luminance (N, N) of a surface under a dome and two bar lights.

    Turned metal is a bundle of concentric grooves, so its highlight is Ward's (1992) anisotropic lobe,
    narrow along the grooves: the bow tie that every turned face shows.
    """
    n = surface.height.shape[0]
    g = grid(n // OVERSAMPLING)
    texture = _turning(generator, g) * surface.gloss
    dx = cv2.Sobel(surface.height, cv2.CV_32F, 1, 0, ksize=3, scale=n / 8)
    dy = cv2.Sobel(surface.height, cv2.CV_32F, 0, 1, ksize=3, scale=n / 8)
    slope = np.sqrt(1 + dx * dx + dy * dy)
    luminance = 0.10 + 0.06 / slope + 0.016 * texture
    along = g.cos * dy - g.sin * dx  # slope along the grooves
    across = g.cos * dx + g.sin * dy
    for azimuth, strength, width in LIGHTS:
        lx, ly = math.cos(azimuth), math.sin(azimuth)
        diffuse = np.maximum(0.75 - 0.66 * (lx * dx + ly * dy), 0) / slope
        luminance += (0.12 * strength) * diffuse
        t = (TILT * ly) * g.cos - (TILT * lx) * g.sin + along
        b = (TILT * lx) * g.cos + (TILT * ly) * g.sin + across
        lobe = np.exp(-(t * t) / np.float32(width**2) - (b * b) / np.float32(0.55))
        luminance += (0.50 * strength) * lobe * surface.gloss * (1 + 0.30 * texture)
    luminance *= surface.albedo
    return np.asarray(luminance, np.float32)


def _turning(generator: np.random.Generator, g: Grid) -> Map:
    """Concentric streaks: fine along the radius, long along the circumference."""
    rows, columns = POLAR
    lines = generator.standard_normal((rows, 1), np.float32)
    streaks = generator.standard_normal((rows, columns), np.float32)
    cells = 0.55 * lines + 0.6 * streaks
    cells = cv2.copyMakeBorder(cells, 0, 0, 0, 1, cv2.BORDER_WRAP)
    return np.asarray(cv2.remap(cells, g.columns, g.rows, cv2.INTER_LINEAR), np.float32)
