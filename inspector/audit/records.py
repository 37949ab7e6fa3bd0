"""What goes into the log and what comes out of it: plain records, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]
Said = Literal["normal", "defect"]
Region = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One decision, as it is committed before the PLC sees it.

    verdict: 1 pass, 2 reject, 3 fault; a fault needs a reason, the others must have none.
    A pass or reject needs score, threshold and bundle, and a pass a score not above the threshold:
    the database refuses anything else.
    time: aware, stored in UTC. latency_ms: from the frame's arrival to this commit.
    stages: milliseconds by stage name.
    """

    time: datetime
    camera: str
    recipe: str
    verdict: int
    reason: str | None = None
    sequence: int | None = None  # the PLC's trigger sequence, 0–65535
    part_id: int | None = None  # as the PLC names the part
    score: float | None = None
    threshold: float | None = None
    bundle: str | None = None  # id of a registered bundle
    frame_id: int | None = None  # the camera's counter
    source: str | None = None  # file name or serial number
    latency_ms: float | None = None
    stages: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedInspection(Inspection):
    """A decision read back; id grows with every decision and is never used twice.

    label: what people say of the part by now.
    """

    id: int
    label: Said | None = None


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame on disk. path is relative to the frame store; sha256 (hex) is over the file's bytes."""

    path: str
    sha256: str
    bytes: int
    width: int
    height: int
    channels: int  # 1 or 3
    bit_depth: int  # 8 or 16


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A score map, max-pooled and quantised; see heatmap.pack.

    scale: the map value that 255 stands for. region: x, y, width, height of the map in the frame's
    pixels; None when it covers the whole frame.
    """

    png: bytes
    scale: float
    width: int
    height: int
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class Measures:
    """What light and lens made of a frame: mean grey, 0 to 1, the fine contrast relative to it, and the grey
    of the brightest places, which the first logs did not have.
    """

    brightness: float
    sharpness: float
    highlight: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was kept of an inspection that is already in the log."""

    inspection_id: int
    frame: StoredFrame | None = None
    heatmap: Heatmap | None = None
    measures: Measures | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What somebody said of a part. Of all labels of an inspection the one with the highest id holds."""

    id: int
    inspection_id: int
    time: datetime
    label: Said
    by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A decision, its latest label in it, with the frame that was kept and what was measured on it."""

    inspection: LoggedInspection
    frame: StoredFrame | None
    measures: Measures | None


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """What of a part that passed or was rejected can drift."""

    id: int
    time: datetime
    verdict: int
    score: float
    brightness: float
    sharpness: float
    highlight: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRecord:
    """The model behind decisions, so that a row can be explained when the bundle itself is gone."""

    id: str  # SHA-256, hex
    recipe: str
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any] | None = None
    scoring: Mapping[str, Any] | None = None
    threshold: Mapping[str, Any] | None = None
    first_used: datetime | None = None  # set by the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that is not a decision: start, stop, respawn, lost frames, PLC silent."""

    id: int
    time: datetime
    kind: str
    severity: Severity
    message: str
    camera: str | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """All that the log knows of one part."""

    inspection: LoggedInspection
    frame: StoredFrame | None
    heatmap: Heatmap | None
    bundle: BundleRecord | None
    measures: Measures | None
    labels: Sequence[Label]  # newest first
