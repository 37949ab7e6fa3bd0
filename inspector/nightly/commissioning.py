"""The pictures of a recipe's first training, kept so that no slow change can carry the model away unnoticed.

`<data>/commissioning/<recipe>/<sha256><suffix>`, written by `inspector train`; each retraining takes its
floor from them. Another set is taken up by removing the folder and training anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from inspector.errors import TrainingError
from inspector.settings import Settings


def folder(settings: Settings, recipe: str) -> Path:
    """Where they are."""
    return settings.station.data / "commissioning" / recipe


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
            data = file.read_bytes()
            with (fresh / (hashlib.sha256(data).hexdigest() + file.suffix.lower())).open("wb") as copy:
                copy.write(data)
                copy.flush()
                os.fsync(copy.fileno())
        fresh.rename(place)
    except OSError as error:
        raise TrainingError(f"the pictures cannot be kept in {place} ({error}); free space there") from error
    return len(files)


def pictures(settings: Settings, recipe: str) -> list[tuple[Path, str]]:
    """Files and their SHA-256, sorted by it; none where nothing was kept."""
    place = folder(settings, recipe)
    found = [(file, file.stem) for file in place.iterdir()] if place.is_dir() else []
    return sorted(found, key=lambda one: one[1])
