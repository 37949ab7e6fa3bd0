"""`inspector check`: what can be said of a station without touching the line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from inspector.camera.folder import SUFFIXES, images_in
from inspector.errors import BundleError, InspectorError, LogError, SettingsError
from inspector.judges import active_bundle
from inspector.settings import CameraSettings, Settings


def check_station(settings: Settings) -> Iterator[str]:
    """One line for each thing that is sound; raises an InspectorError that lists all that is not.

    Every problem is found before anything is raised, so that one run shows all of them.
    """
    problems: list[InspectorError] = []
    cameras = ", ".join(camera.name for camera in settings.camera)
    yield f"station '{settings.station.name}' with {cameras}: settings are sound"
    for camera in settings.camera:
        try:
            yield _check_camera(camera)
        except InspectorError as error:
            problems.append(error)
    if settings.engine.runtime == "openvino" and find_spec("openvino") is None:
        problems.append(
            SettingsError("engine.runtime = 'openvino': not installed; pip install openvino, or take 'torch'")
        )
    for recipe in sorted({camera.recipe for camera in settings.camera}):
        try:
            yield _check_bundle(settings, recipe)
        except InspectorError as error:
            problems.append(error)
    try:
        yield _check_data(settings.station.data)
    except InspectorError as error:
        problems.append(error)
    if problems:
        found = type(problems[0])("\n".join(str(problem) for problem in problems))
        raise found


def _check_camera(camera: CameraSettings) -> str:
    if camera.folder is not None:
        if not camera.folder.path.is_dir():
            raise SettingsError(
                f"camera '{camera.name}': folder.path = {camera.folder.path}: no such folder; "
                "expected a folder of images"
            )
        images = len(images_in(camera.folder.path))
        if not images:
            raise SettingsError(
                f"camera '{camera.name}': folder.path = {camera.folder.path}: found no images; expected "
                f"files named {', '.join(sorted(SUFFIXES))}"
            )
        return f"camera '{camera.name}': folder {camera.folder.path}, {images} images"
    assert camera.genicam is not None  # noqa: S101 - settings give one or the other
    producer = camera.genicam.producer
    if producer is not None and not producer.is_file():
        raise SettingsError(
            f"camera '{camera.name}': genicam.producer = {producer}: no such file; "
            "expected a GenTL producer (.cti), which comes with the camera vendor's software"
        )
    if producer is None and not os.environ.get("GENICAM_GENTL64_PATH"):
        raise SettingsError(
            f"camera '{camera.name}': no genicam.producer, and GENICAM_GENTL64_PATH is not set; "
            "expected one of them to name a GenTL producer (.cti)"
        )
    return f"camera '{camera.name}': producer {producer or 'from GENICAM_GENTL64_PATH'}"


def _check_bundle(settings: Settings, recipe: str) -> str:
    bundle = active_bundle(settings, recipe)
    threshold = bundle.threshold
    if threshold is None:
        raise BundleError(
            f"recipe '{recipe}': bundle {bundle.id[:12]} is not calibrated; run `inspector calibrate`"
        )
    if threshold.precision != settings.engine.precision:
        raise BundleError(
            f"recipe '{recipe}': bundle {bundle.id[:12]} is calibrated for precision {threshold.precision}, "
            f"engine.precision is {settings.engine.precision}; run `inspector calibrate`"
        )
    found = f"bundle {bundle.id[:12]}, threshold {threshold.value:.6g}, {threshold.promise}"
    return f"recipe '{recipe}': {found}"


def _check_data(folder: Path) -> str:
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):  # has no name, and is gone with the block
            pass
    except OSError as error:
        raise LogError(
            f"station.data = {folder}: cannot be written ({error.strerror}); expected a folder that this "
            "user may write to"
        ) from None
    return f"data in {folder}"
