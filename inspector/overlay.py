"""One inspection as one picture: the frame, its heatmap on the calibrated scale, and what was decided.

The scale is fixed by the threshold, never by the picture: blue is far below it, yellow is at it, red is
twice it. A good part looks good: no warm colour stands for a value below the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.verdict import Verdict

Image = NDArray[np.uint8] | NDArray[np.uint16]
Rgb = NDArray[np.uint8]
Colour = tuple[int, int, int]
Region = tuple[int, int, int, int]

_PAPER, _INK, _MUTED, _LINE, _EMPTY = (
    (255, 255, 255),
    (28, 32, 38),
    (112, 120, 130),
    (214, 218, 224),
    (240, 242, 245),
)
_VERDICT: dict[int, tuple[str, Colour]] = {
    Verdict.PASS: ("PASS", (22, 130, 70)),
    Verdict.REJECT: ("REJECT", (196, 30, 40)),
    Verdict.FAULT: ("FAULT", (190, 110, 0)),
}
# Position on the scale and colour; the threshold is at 0.5, where the colour jumps.
_STOPS: tuple[tuple[float, Colour], ...] = (
    (0.00, (38, 50, 110)),
    (0.25, (30, 110, 170)),
    (0.4999, (90, 190, 150)),
    (0.50, (255, 220, 40)),
    (0.75, (240, 110, 20)),
    (1.00, (180, 0, 30)),
)
_OUTLINE_FONTS = int(cv2.__version__.split(".")[0]) >= 5  # before, letters are strokes that need thickness
_REGULAR, _BOLD = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX
_PANEL_MAX, _PANEL_MIN, _ENLARGE = 1200, 240, 2.0  # pixels of the longer side; how far small frames grow


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What the header says. time: aware; threshold None: not calibrated."""

    id: int
    time: datetime
    camera: str
    verdict: int
    recipe: str = ""
    part_id: int | None = None
    sequence: int | None = None
    score: float | None = None
    threshold: float | None = None
    reason: str | None = None
    source: str | None = None
    bundle: str | None = None
    latency_ms: float | None = None


def render(
    caption: Caption,
    frame: Image | None = None,
    score_map: NDArray[np.float32] | None = None,
    *,
    scale: float = 1.0,
    region: Region | None = None,
) -> Rgb:
    """The picture, (H, W, 3) RGB uint8.

    frame: (H, W) or (H, W, 3) RGB, uint8 or uint16. score_map: (h, w) in the threshold's units, stretched
    over region (x, y, width, height in the frame's pixels), or over the whole frame. scale: the map value
    that ends the cool half of the colours where there is no threshold to do so.
    """
    top = 2 * (caption.threshold or scale)
    if score_map is not None and not caption.threshold:
        score_map = np.minimum(score_map, np.float32(scale))  # without a threshold nothing is too much
    panels = _panels(frame, score_map, top, region)
    pictures = _arrange([picture for _, picture in panels], [title for title, _ in panels])
    unit = float(np.clip((pictures.shape[1] + 200) / 1000, 1.0, 2.2))
    if score_map is not None:
        pictures = _beside(pictures, _colour_bar(caption, top, pictures.shape[0], unit), round(12 * unit))
    width = max(pictures.shape[1], round(720 * unit))
    margin = round(24 * unit)
    header = _header(caption, width, unit)
    canvas = _sheet(header.shape[0] + pictures.shape[0] + 2 * margin + margin // 2, width + 2 * margin)
    canvas[margin : margin + header.shape[0], margin : margin + width] = header
    y = margin + header.shape[0] + margin // 2
    canvas[y : y + pictures.shape[0], margin : margin + pictures.shape[1]] = pictures
    return canvas


def encode(picture: Rgb) -> bytes:
    """The picture as PNG."""
    _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return bytes(png)


def colours(values: NDArray[np.float32], top: float) -> Rgb:
    """Map values (H, W) → (H, W, 3) RGB on the fixed scale 0 … top, whose middle is the threshold."""
    levels = np.clip(np.rint(values * (510 / top)), 0, 510).astype(np.intp)
    return np.asarray(_table()[levels], np.uint8)


@cache
def _table() -> Rgb:
    """(511, 3); row 255 is the threshold's colour."""
    positions, stops = zip(*_STOPS, strict=True)
    ramp = np.linspace(0, 1, 511)
    channels = [np.interp(ramp, positions, channel) for channel in zip(*stops, strict=True)]
    return np.asarray(np.stack(channels, axis=-1), np.uint8)


def _panels(
    frame: Image | None, score_map: NDArray[np.float32] | None, top: float, region: Region | None
) -> list[tuple[str, Rgb]]:
    """Title and picture of each panel, all of one size."""
    if frame is None and score_map is None:
        return [("", _placeholder(720, 160, "neither frame nor heatmap stored"))]
    if frame is None:
        assert score_map is not None  # noqa: S101 — ruled out above, mypy cannot see it
        height, width = score_map.shape if region is None else (region[3], region[2])
        heat = _resize(colours(score_map, top), *_fit(width, height))
        return [
            ("Frame", _placeholder(heat.shape[1], heat.shape[0], "no frame stored")),
            ("Heatmap", heat),
        ]
    height, width = frame.shape[:2]
    picture = _resize(_rgb8(frame), *_fit(width, height))
    zoom = (picture.shape[1] / width, picture.shape[0] / height)
    box = _scaled(region or (0, 0, width, height), zoom)
    plain = picture.copy()
    if region is not None:
        _outline(plain, box)
    if score_map is None:
        return [
            ("Frame", plain),
            ("Heatmap", _placeholder(picture.shape[1], picture.shape[0], "no heatmap stored")),
        ]
    return [("Frame", plain), ("Heatmap", _blend(picture, score_map, top, box, region is not None))]


def _blend(picture: Rgb, score_map: NDArray[np.float32], top: float, box: Region, outline: bool) -> Rgb:
    """Heat over the part in light grey, so that its own colours cannot be taken for heat."""
    grey = np.repeat((48 + 0.75 * picture.mean(axis=2, keepdims=True)).astype(np.uint8), 3, axis=2)
    x, y, width, height = box
    values = np.asarray(cv2.resize(score_map, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    alpha = np.interp(values, (0, top / 2), (0.3, 0.7))[..., None]
    part = grey[y : y + height, x : x + width]
    heat = np.rint(part * (1 - alpha) + colours(values, top) * alpha).astype(np.uint8)
    contours, _ = cv2.findContours(
        (values > top / 2).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    thickness = max(1, round(max(picture.shape) / 700))
    cv2.drawContours(heat, contours, -1, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    cv2.drawContours(heat, contours, -1, (255, 255, 255), thickness, cv2.LINE_AA)
    part[:] = heat
    if outline:
        _outline(grey, box)
    return grey


def _arrange(pictures: list[Rgb], titles: list[str]) -> Rgb:
    """Side by side, or one above the other when they are wide; each under its title."""
    height, width = pictures[0].shape[:2]
    stacked = width > 1.6 * height
    unit = float(np.clip((width if stacked else 2 * width) / 1000, 1.0, 2.2))
    bar, gap = round(28 * unit), round(16 * unit)
    tiles = []
    for picture, title in zip(pictures, titles, strict=True):
        tile = _sheet(height + bar, width)
        _text(tile, title, 0, bar - round(10 * unit), round(12 * unit), _MUTED)
        tile[bar:] = picture
        cv2.rectangle(tile, (0, bar), (width - 1, height + bar - 1), _LINE, 1)
        tiles.append(tile)
    result = tiles[0]
    for tile in tiles[1:]:
        result = _below(result, tile, gap // 2) if stacked else _beside(result, tile, gap)
    return result


def _header(caption: Caption, width: int, unit: float) -> Rgb:
    """Verdict, number and time on one line, the facts in columns below."""
    name, colour = _VERDICT.get(caption.verdict, (f"VERDICT {caption.verdict}", _MUTED))
    big, small, label = round(20 * unit), round(14 * unit), round(10.5 * unit)
    facts = _facts(caption)
    columns = max(1, min(len(facts), width // round(170 * unit)))
    rows = -(-len(facts) // columns)
    badge_height, row_height = round(40 * unit), round(46 * unit)
    sheet = _sheet(badge_height + round(14 * unit) + rows * row_height, width)
    badge = _text_width(name, big, bold=True) + round(32 * unit)
    cv2.rectangle(sheet, (0, 0), (badge, badge_height), colour, -1)
    base = (badge_height + big) // 2
    _text(sheet, name, round(16 * unit), base, big, _PAPER, bold=True)
    _text(sheet, f"Inspection {caption.id}", badge + round(18 * unit), base, big, _INK, bold=True)
    time = f"{caption.time.astimezone(UTC).isoformat(' ', 'milliseconds')[:23]} UTC"
    _text(sheet, time, width - _text_width(time, small), base, small, _MUTED)
    step = width / columns
    for index, (key, value, value_colour) in enumerate(facts):
        x = round(index % columns * step)
        y = badge_height + round(14 * unit) + index // columns * row_height
        _text(sheet, key, x, y + round(14 * unit), label, _MUTED)
        room = round(step) - round(10 * unit)
        _text(sheet, _shortened(value, small, room), x, y + round(34 * unit), small, value_colour or _INK)
    return sheet


def _facts(caption: Caption) -> list[tuple[str, str, Colour | None]]:
    """Label, text and colour of what is known."""
    colour = _VERDICT.get(caption.verdict, ("", _INK))[1]
    uncalibrated = None if caption.score is None else "not calibrated"
    known: list[tuple[str, str | None, Colour | None]] = [
        ("Reason", caption.reason, colour),
        ("Score", _number(caption.score), colour if caption.verdict != Verdict.FAULT else None),
        ("Threshold", _number(caption.threshold) or uncalibrated, None),
        ("Part", _integer(caption.part_id), None),
        ("Sequence", _integer(caption.sequence), None),
        ("Camera", caption.camera, None),
        ("Recipe", caption.recipe or None, None),
        ("Source", caption.source, None),
        ("Bundle", caption.bundle and caption.bundle[:12], None),
        ("Latency", None if caption.latency_ms is None else f"{caption.latency_ms:.1f} ms", None),
    ]
    return [(key, value, colour) for key, value, colour in known if value is not None]


def _colour_bar(caption: Caption, top: float, height: int, unit: float) -> Rgb:
    """The colours from 0 to top, with ticks for the threshold and the score; the cool half without one."""
    bar, size, head, stroke = round(18 * unit), round(11.5 * unit), round(28 * unit), max(1, round(unit))
    end = top if caption.threshold else top / 2
    marks: list[tuple[float, str, Colour, bool]] = [
        (end, _number(end) or "", _MUTED, False),
        (0.0, "0", _MUTED, False),
    ]
    if caption.threshold:
        marks.append((caption.threshold, f"threshold {_number(caption.threshold)}", _INK, False))
    if caption.score is not None and np.isfinite(caption.score):
        colour = _VERDICT.get(caption.verdict, ("", _INK))[1]
        marks.append((caption.score, f"score {_number(caption.score)}", colour, True))
    marks.sort(key=lambda mark: -mark[0])
    labels = max(_text_width(text, size, bold=bold) for _, text, _, bold in marks)
    sheet, length = _sheet(height, round(40 * unit) + labels), height - head
    sheet[head:, :bar] = colours(np.linspace(end, 0, length, dtype=np.float32)[:, None], top)
    ticks = [head + round((1 - min(max(value / end, 0.0), 1.0)) * (length - 1)) for value, *_ in marks]
    baselines = _apart([tick + size // 2 for tick in ticks], round(1.5 * size), head + size, height - 1)
    for tick, baseline, (_, text, colour, bold) in zip(ticks, baselines, marks, strict=True):
        elbow = (bar + round(4 * unit), tick)
        cv2.line(sheet, (0, tick), elbow, colour, stroke, cv2.LINE_AA)
        cv2.line(sheet, elbow, (round(32 * unit), baseline - size // 2), colour, stroke, cv2.LINE_AA)
        _text(sheet, text, round(36 * unit), baseline, size, colour, bold=bold)
    return sheet


def _apart(wanted: list[int], distance: int, lowest: int, highest: int) -> list[int]:
    """Positions in ascending order, pushed apart so that labels do not overlap."""
    placed = list(wanted)
    for i in range(len(placed)):
        placed[i] = max(placed[i], lowest if i == 0 else placed[i - 1] + distance)
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], highest if i == len(placed) - 1 else placed[i + 1] - distance)
    return placed


def _sheet(height: int, width: int) -> Rgb:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _placeholder(width: int, height: int, text: str) -> Rgb:
    sheet = np.full((height, width, 3), _EMPTY, np.uint8)
    size = max(9, min(16, width // 24))
    _text(sheet, text, (width - _text_width(text, size)) // 2, (height + size) // 2, size, _MUTED)
    return sheet


def _beside(left: Rgb, right: Rgb, gap: int) -> Rgb:
    return np.hstack([left, _sheet(left.shape[0], gap), right])


def _below(upper: Rgb, lower: Rgb, gap: int) -> Rgb:
    return np.vstack([upper, _sheet(gap, upper.shape[1]), lower])


def _rgb8(frame: Image) -> Rgb:
    """8 bits of the frame, brightness as it is: no stretching."""
    eight = (frame >> 8).astype(np.uint8) if frame.dtype == np.uint16 else frame.astype(np.uint8)
    return eight if eight.ndim == 3 else np.repeat(eight[:, :, None], 3, axis=2)


def _fit(width: int, height: int) -> tuple[int, int]:
    side = max(width, height)
    zoom = min(_PANEL_MAX / side, max(_ENLARGE, _PANEL_MIN / side))
    return max(1, round(width * zoom)), max(1, round(height * zoom))


def _resize(picture: Rgb, width: int, height: int) -> Rgb:
    smaller = width < picture.shape[1]
    result = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    )
    return np.asarray(result, np.uint8)


def _scaled(region: Region, zoom: tuple[float, float]) -> Region:
    x, y, width, height = region
    return (
        round(x * zoom[0]),
        round(y * zoom[1]),
        max(1, round(width * zoom[0])),
        max(1, round(height * zoom[1])),
    )


def _outline(picture: Rgb, box: Region) -> None:
    x, y, width, height = box
    cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), (0, 0, 0), 3)
    cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), (255, 255, 255), 1)


def _text(sheet: Rgb, text: str, x: int, y: int, size: int, colour: Colour, *, bold: bool = False) -> None:
    """Text whose capitals are size pixels high, its baseline at y."""
    font = _BOLD if bold else _REGULAR
    cv2.putText(sheet, text, (x, y), font, _font_scale(size, font), colour, _stroke(size), cv2.LINE_AA)


def _text_width(text: str, size: int, *, bold: bool = False) -> int:
    font = _BOLD if bold else _REGULAR
    return int(cv2.getTextSize(text, font, _font_scale(size, font), _stroke(size))[0][0])


def _font_scale(size: int, font: int) -> float:
    fitted = size / cv2.getTextSize("H", font, 10.0, 1)[0][1] * 10.0
    return fitted if _OUTLINE_FONTS else 0.8 * fitted  # stroke fonts run wide


def _stroke(size: int) -> int:
    return 1 if _OUTLINE_FONTS else max(1, round(size / 11))


def _shortened(text: str, size: int, room: int) -> str:
    """The text, its middle cut out until it fits: both ends of a file name say something."""
    if _text_width(text, size) <= room:
        return text
    kept = len(text) - 1
    while kept > 4 and _text_width(_middle_cut(text, kept), size) > room:
        kept -= 1
    return _middle_cut(text, kept)


def _middle_cut(text: str, kept: int) -> str:
    return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _integer(value: int | None) -> str | None:
    return None if value is None else str(value)
