"""Where parts to calibrate on come from: a folder, a camera of the station, or its log."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from inspector.audit.frames import FrameStore
from inspector.audit.log import AuditLog
from inspector.audit.records import Part
from inspector.camera import Image
from inspector.errors import DataError, SettingsError
from inspector.model.bundle import Bundle
from inspector.settings import CameraSettings, Settings
from inspector.verdict import Verdict


@dataclass(frozen=True)
class Source:
    """Parts, one after the other. name: as the threshold's record tells it; notes: what to know of them."""

    name: str
    total: int
    pictures: Iterable[tuple[str, Image]]
    notes: tuple[str, ...] = ()


def seen(bundle: Bundle) -> set[str]:
    """SHA-256 of the pictures that the model has learned from, or that its training was steered by."""
    listed = [*bundle.provenance.get("trained_on", ()), *bundle.provenance.get("held_out", ())]
    return {digest for _, digest in listed}


def from_folder(folder: Path, without: Collection[str] = ()) -> Source:
    """Every image of a folder but those with these SHA-256. Raises DataError."""
    from training.data import list_images, read_hashed, sha256

    files = list_images(folder)
    fresh = [file for file in files if sha256(file) not in without] if without else files
    left = len(files) - len(fresh)
    if not fresh:
        raise DataError(f"{folder}: the model has learned from all {left} pictures; expected others")
    notes = (
        (f"{left} of {len(files)} pictures are left out: the model has learned from them",) if left else ()
    )
    return Source(str(folder), len(fresh), ((str(file), read_hashed(file)[0]) for file in fresh), notes)


def from_camera(camera: CameraSettings, frames: int, timeout_s: float) -> Source:
    """The next frames of a camera. Raises CameraError while they are taken."""
    from inspector.capture import capture

    taken = capture(camera, frames, timeout_s)
    return Source(f"camera {camera.name}", frames, ((frame.source, frame.image) for frame in taken))


def from_log(
    settings: Settings,
    recipe: str,
    since: datetime | None,
    until: datetime | None,
    without: Collection[str],
) -> Source:
    """Stored frames of parts that passed or are labelled normal, but those labelled defect and those seen.

    Raises LogError, and DataError when there are none.
    """
    with AuditLog.open(settings.database, readonly=True) as log:
        parts = log.parts(recipe=recipe, since=since, until=until)
    normal = [part for part in parts if is_normal(part)]
    kept = [part for part in normal if part.frame is not None]
    fresh = [part for part in kept if part.frame is not None and part.frame.sha256 not in without]
    if not fresh:
        raise DataError(
            f"{settings.database}: no stored frames of normal parts of recipe '{recipe}' in this time "
            f"({len(normal)} parts are normal, {len(kept)} of them with a frame, all of these learned from); "
            'expected some: widen --since and --until, or set log.frames = "all"'
        )
    unlabelled = sum(p.inspection.verdict == Verdict.REJECT and p.inspection.label is None for p in parts)
    return Source(
        f"log {_span(fresh)}",
        len(fresh),
        _frames(settings, fresh),
        tuple(_log_notes(len(kept) - len(fresh), unlabelled)),
    )


def labelled_defects(settings: Settings, recipe: str) -> Source | None:
    """Stored frames of parts labelled defect; None when there are none, or no log."""
    if not settings.database.exists():
        return None
    with AuditLog.open(settings.database, readonly=True) as log:
        parts = [part for part in log.parts(recipe=recipe, label="defect") if part.frame is not None]
    return Source("parts labelled defect", len(parts), _frames(settings, parts)) if parts else None


def is_normal(part: Part) -> bool:
    """People's word first; without it, what passed."""
    one = part.inspection
    return one.label == "normal" or (one.label is None and one.verdict == Verdict.PASS)


def _log_notes(left: int, unlabelled: int) -> Iterator[str]:
    if left:
        yield f"{left} parts are left out: the model has learned from them"
    if unlabelled:
        yield (
            f"{unlabelled} rejected parts of this time have no label: normal ones among them are missing "
            "here, and without them the threshold comes out too low; `inspector log --verdict reject` lists "
            "them, `inspector label ID normal` brings them in"
        )


def _frames(settings: Settings, parts: list[Part]) -> Iterator[tuple[str, Any]]:
    store = FrameStore(settings.frames)
    for part in parts:
        assert part.frame is not None  # noqa: S101 - parts without one are left out before
        yield str(store.root / part.frame.path), store.read(part.frame)


def _span(parts: list[Part]) -> str:
    first, last = parts[0].inspection.time, parts[-1].inspection.time
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def camera_of(settings: Settings, name: str, recipe: str) -> CameraSettings:
    """The camera of this name, which must run this recipe. Raises SettingsError."""
    for camera in settings.camera:
        if camera.name == name:
            if camera.recipe != recipe:
                raise SettingsError(f"--camera {name}: it runs recipe '{camera.recipe}', not '{recipe}'")
            return camera
    known = ", ".join(camera.name for camera in settings.camera)
    raise SettingsError(f"--camera {name}: no such camera; expected one of {known}")
