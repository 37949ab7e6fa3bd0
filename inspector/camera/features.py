"""Writing a camera's features, checked against its own node map (GenICam SFNC names).

All errors are CameraSetupError and name the feature, what was found and what the camera accepts.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from genicam import genapi

from inspector.errors import CameraSetupError

Value = bool | int | float | str
Trigger = Literal["camera", "plc", "interval"]

_WORDS = {
    genapi.IInteger: "a whole number",
    genapi.IFloat: "a number",
    genapi.IBoolean: "true or false",
    genapi.IEnumeration: "one of its entries as a string",
    genapi.IString: "a string",
    genapi.ICommand: "true, which executes it",
}


def configure(node_map: Any, features: Mapping[str, Value], trigger: Trigger) -> Any | None:
    """Write the features in their order and make the camera's trigger what the station wants.

    "camera": frames come from the camera's own trigger input. FrameStart is switched on before the
    features, which name the line (TriggerSource) and have the last word; a camera without TriggerMode
    free-runs, and every frame is a part.
    "plc": FrameStart by software, after the features; returns the command that fires it.
    "interval": FrameStart off, after the features.
    """
    if trigger == "camera" and "TriggerMode" not in features and available(node_map, "TriggerMode"):
        _select_frame_start(node_map)
        write(node_map, "TriggerMode", "On")
    if "AcquisitionMode" not in features and _writable(node_map, "AcquisitionMode"):
        write(node_map, "AcquisitionMode", "Continuous")
    for name, value in features.items():
        write(node_map, name, value)
    if trigger == "camera":
        _refuse_software_source(node_map)
    if trigger == "interval" and available(node_map, "TriggerMode"):
        _select_frame_start(node_map)
        write(node_map, "TriggerMode", "Off")
    return _software_trigger(node_map) if trigger == "plc" else None


def write(node_map: Any, name: str, value: Value) -> None:
    """Set one feature, or execute it where it is a command."""
    node = _node(node_map, name)
    where = f"camera.genicam.features.{name}"
    _check_type(where, node, value)
    _check_access(where, node)
    _check_value(where, node, value)
    try:
        if isinstance(node, genapi.ICommand):
            node.execute()
            return
        node.value = value
        taken = node.value if node.get_access_mode() == genapi.EAccessMode.RW else value
    except genapi.GenericException as error:
        raise CameraSetupError(f"{where} = {_shown(value)}: the camera refuses: {error}") from None
    if taken != value and not isinstance(node, genapi.IFloat):  # numbers may be rounded to what it can do
        raise CameraSetupError(f"{where} = {_shown(value)}: the camera made {_shown(taken)} of it")


def available(node_map: Any, name: str) -> bool:
    """Whether the camera has this feature and can use it now."""
    try:
        access = node_map.get_node(name).get_access_mode()
    except genapi.LogicalErrorException:
        return False
    return access not in (genapi.EAccessMode.NI, genapi.EAccessMode.NA)


def _writable(node_map: Any, name: str) -> bool:
    return available(node_map, name) and node_map.get_node(name).get_access_mode() in (
        genapi.EAccessMode.RW,
        genapi.EAccessMode.WO,
    )


def _node(node_map: Any, name: str) -> Any:
    try:
        return node_map.get_node(name)
    except genapi.LogicalErrorException:
        close = difflib.get_close_matches(name, _names(node_map), n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise CameraSetupError(
            f"camera.genicam.features.{name}: the camera has no such feature{hint}"
        ) from None


def _names(node_map: Any) -> list[str]:
    return [name for name in dir(node_map) if name[:1].isupper()]


def _check_type(where: str, node: Any, value: Value) -> None:
    expected = next((words for kind, words in _WORDS.items() if isinstance(node, kind)), None)
    if expected is None:
        raise CameraSetupError(f"{where}: is no feature with a value (it is an {type(node).__name__})")
    fits = {
        genapi.IInteger: isinstance(value, int) and not isinstance(value, bool),
        genapi.IFloat: isinstance(value, int | float) and not isinstance(value, bool),
        genapi.IBoolean: isinstance(value, bool),
        genapi.IEnumeration: isinstance(value, str),
        genapi.IString: isinstance(value, str),
        genapi.ICommand: value is True,
    }
    if not any(isinstance(node, kind) and fit for kind, fit in fits.items()):
        raise CameraSetupError(f"{where}: found {_shown(value)}; expected {expected}")


def _check_access(where: str, node: Any) -> None:
    access = node.get_access_mode()
    if access == genapi.EAccessMode.NI:
        raise CameraSetupError(f"{where}: this camera does not implement it; remove it")
    if access == genapi.EAccessMode.NA:
        raise CameraSetupError(
            f"{where}: not available in the camera's present state; another feature (a selector, a …Mode, "
            f"an …Auto) must be set before it"
        )
    if access == genapi.EAccessMode.RO:
        raise CameraSetupError(f"{where}: not writable (the camera holds it at {node.to_string()})")


def _check_value(where: str, node: Any, value: Value) -> None:
    if isinstance(node, genapi.IEnumeration):
        entries = _entries(node)
        if value not in entries:
            raise CameraSetupError(f"{where}: found {_shown(value)}; expected one of {', '.join(entries)}")
    if isinstance(node, genapi.IInteger | genapi.IFloat):
        low, high = node.min, node.max
        unit = f" {node.unit}" if node.unit else ""
        if not low <= value <= high:
            raise CameraSetupError(f"{where}: found {value}{unit}; expected {low} to {high}{unit}")
    if isinstance(node, genapi.IInteger) and node.inc > 1 and (int(value) - node.min) % node.inc:
        raise CameraSetupError(f"{where}: found {value}; expected {node.min} plus a multiple of {node.inc}")


def _entries(node: Any) -> list[str]:
    usable = (genapi.EAccessMode.RO, genapi.EAccessMode.WO, genapi.EAccessMode.RW)
    return [entry.symbolic for entry in node.entries if entry.get_access_mode() in usable]


def _select_frame_start(node_map: Any) -> None:
    if _writable(node_map, "TriggerSelector"):
        write(node_map, "TriggerSelector", "FrameStart")


def _refuse_software_source(node_map: Any) -> None:
    """A camera that waits for a software trigger nobody sends would be silent for ever."""
    names = ("TriggerMode", "TriggerSource")
    if not all(available(node_map, name) for name in names):
        return
    if [node_map.get_node(name).value for name in names] == ["On", "Software"]:
        lines = ", ".join(entry for entry in _entries(node_map.TriggerSource) if entry != "Software")
        raise CameraSetupError(
            'trigger = "camera": the camera\'s TriggerSource is Software; set camera.genicam.features.'
            f"TriggerSource to the line that is wired ({lines or 'the camera names none'})"
        )


def _software_trigger(node_map: Any) -> Any:
    for name in ("TriggerMode", "TriggerSoftware"):
        if not available(node_map, name):
            _select_frame_start(node_map)
        if not available(node_map, name):
            raise CameraSetupError(
                f'trigger = "plc": the camera has no feature {name}, so that nobody can tell it when to take '
                'a frame; use trigger = "camera" with a wired trigger, or a camera with a software trigger'
            )
    _select_frame_start(node_map)
    write(node_map, "TriggerMode", "On")
    if available(node_map, "TriggerSource"):
        write(node_map, "TriggerSource", "Software")
    return node_map.TriggerSoftware


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
