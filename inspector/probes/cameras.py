"""Folders, GenTL producers, and the cameras behind them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from inspector.camera.discovery import SEARCH_PATH, Device, probe, producers
from inspector.camera.folder import images_in
from inspector.doctor import FAIL, OK, WARN, Finding
from inspector.errors import CameraSetupError
from inspector.settings import Genicam, Settings


def folders(settings: Settings) -> Iterator[Finding]:
    """Cameras that replay a folder."""
    for camera in settings.camera:
        if camera.folder is None:
            continue
        subject, path = f"camera {camera.name}", camera.folder.path
        if not path.is_dir():
            what = "is not a folder" if path.exists() else "does not exist"
            yield Finding(FAIL, subject, f"{path} {what}", "correct camera.folder.path")
        elif not (images := images_in(path)):
            yield Finding(FAIL, subject, f"no images in {path}", "put images there, or correct the path")
        else:
            yield Finding(OK, subject, f"folder {path}, {len(images)} images")


def genicam(settings: Settings) -> Iterator[Finding]:
    """Every producer that station.toml or the environment names, what it sees, and the station's cameras.

    Each producer is loaded in a process of its own, so that one that crashes or hangs is a finding.
    """
    yield from _stale_folders()
    wanted = {camera.name: camera.genicam for camera in settings.camera if camera.genicam is not None}
    serving: dict[str, list[Path]] = {}  # camera → the producers that may serve it
    for name, one in wanted.items():
        try:
            serving[name] = producers(one.producer)
        except CameraSetupError as error:
            yield Finding(FAIL, f"camera {name}", str(error))
    needed = list(dict.fromkeys(file for files in serving.values() for file in files))
    files = list(dict.fromkeys([*needed, *_from_environment()]))
    if not files and not wanted:
        yield Finding(OK, "producers", "no GenTL producer found, and no camera here needs one")
    seen: dict[Path, tuple[Device, ...]] = {}
    for file in files:
        found = probe(file)[0]
        seen[file] = found.devices
        yield _producer(file, found.devices, found.problem, needed=file in needed)
        for device in found.devices:
            formats = ", ".join(device.pixel_formats) or "unknown"
            yield Finding(OK, "device", f"{device}, pixel formats {formats}")
    for name, its in serving.items():
        yield _camera(f"camera {name}", wanted[name], [device for file in its for device in seen[file]])


def _from_environment() -> list[Path]:
    try:
        return producers(None)
    except CameraSetupError:
        return []


def _stale_folders() -> Iterator[Finding]:
    for entry in filter(None, os.environ.get(SEARCH_PATH, "").split(os.pathsep)):
        if not Path(entry).is_dir():
            advice = "take it out of the variable, or install the camera vendor's software again"
            yield Finding(WARN, "producers", f"{SEARCH_PATH} names {entry}, which is no folder", advice)


def _producer(file: Path, devices: tuple[Device, ...], problem: str, *, needed: bool) -> Finding:
    if problem:
        advice = "install the camera vendor's software again, for this machine's architecture"
        return Finding(FAIL if needed else WARN, "producer", f"{file}: {problem}", advice)
    message = f"{file} sees {len(devices)} devices"
    if not devices:
        return Finding(WARN, "producer", message, "check power, cable, network address and firewall")
    return Finding(OK, "producer", message)


def _camera(subject: str, wanted: Genicam, devices: list[Device]) -> Finding:
    """Whether the device that the station asks for is there, once, and free."""
    asked = {"serial": wanted.serial, "user_id": wanted.user_id, "model": wanted.model}
    key, value = next((key, value) for key, value in asked.items() if value is not None)
    matching = {(d.vendor, d.model, d.serial): d for d in devices if getattr(d, key) == value}
    what = f"genicam.{key} = '{value}'"
    if not matching:
        advice = "switch the camera on, or take the name from the devices listed above"
        return Finding(FAIL, subject, f"{what}: no such device", advice)
    if len(matching) > 1:
        return Finding(FAIL, subject, f"{what}: {len(matching)} devices match", "choose one by its serial")
    device = next(iter(matching.values()))
    if device.access != "free":
        advice = "nothing to do if the daemon is running; else close the program that has the camera"
        return Finding(WARN, subject, f"{what} is {device}", advice)
    return Finding(OK, subject, f"{what} is {device}")
