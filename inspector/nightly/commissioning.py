"""The pictures that people chose, kept so that no slow change can carry model and threshold away unnoticed.

`<data>/commissioning/<recipe>/<sha256><suffix>`, written by the first `inspector train`; each retraining
takes its floor from them. Another set is taken up by removing the folder and training anew.

`<data>/calibration/<recipe>/<sha256><suffix>`, written anew by each `inspector calibrate`: from folder,
camera or log. Nights that took their threshold from what has passed since would bring it down one after the
other, for the normal parts that were rejected are missing there; a set that a person has chosen stays what it
is. While a set takes the place of another, that one waits in `.<recipe>.old`, where pictures() finds it
should nobody be left to finish.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from inspector.audit.frames import encoded
from inspector.camera import Image
from inspector.errors import TrainingError
from inspector.normals import Source
from inspector.settings import Settings


def folder(settings: Settings, recipe: str) -> Path:
    """Where they are."""
    return settings.station.data / "commissioning" / recipe


def golden(settings: Settings, recipe: str) -> tuple[Path, Path]:
    """Where an integrator puts normal parts and defects that are never learned from."""
    place = settings.station.data / "golden" / recipe
    return place / "normal", place / "defect"


def keep(settings: Settings, recipe: str, files: Sequence[Path]) -> int:
    """Copy them, unless there is a set already; how many were copied. Raises TrainingError."""
    place = folder(settings, recipe)
    if place.is_dir():
        return 0
    fresh = place.with_name(f".{recipe}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for file in files:
            _copy(fresh, file.read_bytes(), file.suffix)
        fresh.rename(place)
    except OSError as error:
        raise _full(place, error) from error
    return len(files)


class Calibration:
    """The pictures of a calibration: copied while they are scored, taken up when that has come to its end."""

    def __init__(self, settings: Settings, recipe: str) -> None:
        self.folder = settings.station.data / "calibration" / recipe
        self._fresh = self.folder.with_name(f".{recipe}.new")

    def copied(self, source: Source, most: int | None = None) -> Source:
        """The same source; of more than `most` parts so many are kept, evenly spread.

        Raises TrainingError from reading it when the disk is full.
        """
        total = max(source.total, 1)
        share = total if most is None else min(most, total)

        def copying() -> Iterator[tuple[str, Image]]:
            shutil.rmtree(self._fresh, ignore_errors=True)
            self._fresh.mkdir(parents=True)
            for number, (name, image) in enumerate(source.pictures):
                if (number + 1) * share // total > number * share // total:
                    try:
                        _copy(self._fresh, *_contents(Path(name), image))
                    except OSError as error:
                        raise _full(self.folder, error) from error
                yield name, image

        return replace(source, pictures=copying())

    def take_up(self) -> None:
        """The copies replace those from before; a kill leaves one set whole. Raises TrainingError.

        It comes before the threshold is activated. A kill between the two leaves the new parts with the old
        threshold, which harms nothing: each night scores them anew for a threshold of its own.
        """
        old = _aside(self.folder)
        try:
            if self.folder.is_dir():
                shutil.rmtree(old, ignore_errors=True)  # left by a kill after its successor had come
                self.folder.rename(old)
            self._fresh.rename(self.folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise _full(self.folder, error) from error


def _contents(file: Path, image: Image) -> tuple[bytes, str]:
    return (file.read_bytes(), file.suffix) if file.is_file() else (encoded(image), ".png")


def _copy(place: Path, data: bytes, suffix: str) -> None:
    with (place / (hashlib.sha256(data).hexdigest() + suffix.lower())).open("wb") as copy:
        copy.write(data)
        copy.flush()
        os.fsync(copy.fileno())


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _full(place: Path, error: OSError) -> TrainingError:
    return TrainingError(f"the pictures cannot be kept in {place} ({error}); free space there")


def pictures(place: Path) -> list[tuple[Path, str]]:
    """Files and their SHA-256, sorted by it; none where nothing was kept."""
    place = place if place.is_dir() else _aside(place)
    found = [(file, file.stem) for file in place.iterdir()] if place.is_dir() else []
    return sorted(found, key=lambda one: one[1])
