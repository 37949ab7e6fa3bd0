"""Change settings by name: "epochs=10", "architecture.memory=false", for nested frozen dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from inspector.errors import TrainingError

T = TypeVar("T")


def override(settings: T, changes: Mapping[str, str]) -> T:
    """Settings with each named field set to a value of its own type.

    A key is a field, a dotted path, or the last part of one where that is clear. Raises TrainingError.
    """
    for key, text in changes.items():
        settings = _set(settings, _path(settings, key), key, text)
    return settings


def _path(settings: object, key: str) -> list[str]:
    paths = _paths(settings)
    found = [path for path in paths if path == key] or [p for p in paths if p.endswith(f".{key}")]
    if len(found) == 1:
        return found[0].split(".")
    reason = f"means {' or '.join(found)}" if found else "is not a setting"
    raise TrainingError(f"{key} {reason}; expected one of {', '.join(paths)}.")


def _paths(settings: object) -> list[str]:
    found: list[str] = []
    for field in fields(settings):  # type: ignore[arg-type]  # only called on dataclasses
        value = getattr(settings, field.name)
        if is_dataclass(value):
            found += [f"{field.name}.{path}" for path in _paths(value)]
        else:
            found.append(field.name)
    return found


def _set(settings: Any, path: list[str], key: str, text: str) -> Any:
    name, *rest = path
    current = getattr(settings, name)
    value = _set(current, rest, key, text) if rest else _parsed(text, current, key)
    return replace(settings, **{name: value})


def _parsed(text: str, current: object, key: str) -> object:
    if isinstance(current, str):
        return text
    if isinstance(current, tuple) and not text.startswith("["):
        return tuple(_read(item) for item in text.split(",") if item)
    value = _read(text)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(current, tuple) and isinstance(value, list):
        return tuple(value)
    if current is not None and type(value) is not type(current):
        raise TrainingError(
            f"{key}={text}: expected {type(current).__name__}, such as {json.dumps(current)}."
        )
    return value


def _read(text: str) -> object:
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value
