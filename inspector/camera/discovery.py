"""Which GenTL producers there are, and which cameras they see."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from genicam import gentl
from harvesters.core import Harvester, ParameterKey, ParameterSet

from inspector.camera.features import available
from inspector.errors import CameraError, CameraSetupError
from inspector.settings import Genicam

SEARCH_PATH = "GENICAM_GENTL64_PATH"
PROBE_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Device:
    """One camera as its producer describes it."""

    vendor: str
    model: str
    serial: str
    user_id: str
    access: str  # "free", "busy" or what the producer says
    pixel_formats: tuple[str, ...] = ()  # empty where the camera could not be asked

    def __str__(self) -> str:
        named = f", user id {self.user_id}" if self.user_id else ""
        return f"{self.vendor} {self.model}, serial {self.serial}{named} ({self.access})"


@dataclass(frozen=True, slots=True)
class Producer:
    """One .cti file and what it sees; problem says why it sees nothing."""

    path: Path
    devices: tuple[Device, ...] = ()
    problem: str = ""


def producers(configured: Path | None) -> list[Path]:
    """The .cti files to use: the configured one, else every one in GENICAM_GENTL64_PATH.

    Raises CameraSetupError when there is none.
    """
    if configured is not None:
        if not configured.is_file():
            raise CameraSetupError(
                f"camera.genicam.producer: {configured}: no such file; expected a .cti file"
            )
        return [configured]
    folders = [Path(part) for part in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if part]
    found = [file for folder in folders for file in sorted(folder.glob("*.cti"))]
    if not found:
        where = f"no .cti file in {os.pathsep.join(map(str, folders))}" if folders else "is not set"
        raise CameraSetupError(
            f"no GenTL producer: {SEARCH_PATH} {where}; install the camera vendor's GenTL package, "
            "or name its .cti file as camera.genicam.producer"
        )
    return list(dict.fromkeys(found))


@contextmanager
def harvester(files: list[Path]) -> Iterator[tuple[Harvester, list[str]]]:
    """A Harvester that has looked for devices once, and what it complained of meanwhile."""
    complaints: list[str] = []
    logger = logging.Logger("harvesters", logging.WARNING)
    logger.addHandler(_Collector(complaints))
    found = Harvester(config=ParameterSet({ParameterKey.LOGGER: logger}))
    try:
        for file in files:
            found.add_file(str(file))
        found.update()
        yield found, complaints
    finally:
        found.reset()


def choose(found: Harvester, complaints: list[str], settings: Genicam) -> Any:
    """The device information that serial, user_id or model of the settings means.

    The same camera seen through two producers counts once. Raises CameraError when it is not there
    (it may yet be switched on), CameraSetupError when a model is there more than once.
    """
    key, attribute, wanted = _wanted(settings)
    matching: dict[tuple[str, str, str], Any] = {}
    for info in found.device_info_list:
        if _text(info, attribute) == wanted:
            device = describe(info)
            matching.setdefault((device.vendor, device.model, device.serial), info)
    if len(matching) > 1:
        several = "; ".join(str(describe(info)) for info in matching.values())
        raise CameraSetupError(
            f"camera.genicam.{key} = '{wanted}': {len(matching)} cameras match: {several}; "
            "choose one by serial"
        )
    if not matching:
        seen = "; ".join(str(describe(info)) for info in found.device_info_list) or "none"
        trouble = f" (while searching: {' | '.join(complaints)})" if complaints else ""
        raise CameraError(
            f"camera.genicam.{key} = '{wanted}': no such camera; cameras found: {seen}{trouble}"
        )
    return next(iter(matching.values()))


def claim(found: Harvester, info: Any) -> Any:
    """Open a device for this process alone; a harvesters ImageAcquirer.

    Raises CameraError when another one has it.
    """
    config = ParameterSet({ParameterKey.ENABLE_AUTO_CHUNK_DATA_UPDATE: False})
    sigint = signal.getsignal(signal.SIGINT)
    try:
        return found.create(info, config=config)
    except (gentl.ResourceInUseException, gentl.AccessDeniedException, gentl.BusyException):
        raise CameraError(
            f"camera {describe(info)}: in use by another program; close it there, "
            "or wait until the camera has noticed that its last user is gone"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, sigint)  # harvesters takes it for itself


def describe(info: Any) -> Device:
    """A harvesters DeviceInfo as a Device."""
    names = {
        gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_READWRITE: "free",
        gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_READONLY: "read only",
        gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_NOACCESS: "no access",
        gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_BUSY: "busy",
        gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_OPEN_READWRITE: "busy",
        gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_OPEN_READONLY: "busy",
    }
    try:
        access = names.get(info.access_status, "access unknown")
    except gentl.GenericException:
        access = "access unknown"
    return Device(
        _text(info, "vendor"),
        _text(info, "model"),
        _text(info, "serial_number"),
        _text(info, "user_defined_name"),
        access,
    )


def probe(configured: Path | None = None) -> list[Producer]:
    """Every producer with the cameras it sees, for `inspector doctor`.

    Each producer is loaded in a process of its own: a vendor's library that crashes or hangs becomes a
    problem of its line. Free cameras are opened for a moment to read their pixel formats.
    Raises CameraSetupError when there is no producer file.
    """
    return [_probe_apart(file) for file in producers(configured)]


def _probe_apart(file: Path) -> Producer:
    command = [sys.executable, "-m", "inspector.camera.discovery", str(file)]
    try:
        done = subprocess.run(  # noqa: S603 our own interpreter and module
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=PROBE_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Producer(file, problem=f"no answer within {PROBE_LIMIT_S:g} s")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        return Producer(file, problem=f"the process that loaded it ended with {how}: {last[0]}")
    answer = json.loads(done.stdout.splitlines()[-1])  # libraries may have chatted before
    devices = tuple(
        Device(**{**one, "pixel_formats": tuple(one["pixel_formats"])}) for one in answer["devices"]
    )
    return Producer(file, devices, answer["problem"])


def _probe_here(file: Path) -> dict[str, Any]:
    with harvester([file]) as (found, complaints):
        devices = [asdict(_with_formats(found, info)) for info in found.device_info_list]
        return {"devices": devices, "problem": " | ".join(complaints)}


def _with_formats(found: Harvester, info: Any) -> Device:
    device = describe(info)
    if device.access != "free":
        return device
    try:
        acquirer = claim(found, info)
    except CameraError:
        return replace(device, access="busy")
    except gentl.GenericException as error:
        return replace(device, access=f"cannot be opened: {error}")
    try:
        node_map = acquirer.remote_device.node_map
        formats = node_map.PixelFormat.symbolics if available(node_map, "PixelFormat") else ()
        return replace(device, pixel_formats=tuple(formats))
    finally:
        acquirer.destroy()


def _wanted(settings: Genicam) -> tuple[str, str, str]:
    if settings.serial is not None:
        return "serial", "serial_number", settings.serial
    if settings.user_id is not None:
        return "user_id", "user_defined_name", settings.user_id
    return "model", "model", settings.model or ""


def _text(info: Any, attribute: str) -> str:
    """A property that the producer may not know."""
    try:
        return str(getattr(info, attribute) or "")
    except gentl.GenericException:
        return ""


class _Collector(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__()
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        self._into.append(record.getMessage())


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_probe_here(Path(sys.argv[1]))) + "\n")
