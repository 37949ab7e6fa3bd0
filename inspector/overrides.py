"""INSPECTOR_* variables: any key of station.toml from the environment, typos refused."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as NotJsonError

from inspector.errors import SettingsError
from inspector.explain import Location
from inspector.fields import FromEnvironment

PREFIX = "INSPECTOR_"
FILE_KEY = "INSPECTOR_CONFIG"
TEST_PREFIX = "INSPECTOR_TEST_"


class Environment(EnvSettingsSource):
    """INSPECTOR_* as nested tables, their texts marked as such."""

    def __call__(self) -> dict[str, Any]:
        """Tables by section."""
        return {key: _marked(value) for key, value in super().__call__().items()}


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _marked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return FromEnvironment(value) if isinstance(value, str) else value


def variables() -> list[str]:
    """The environment's variables that mean a station; INSPECTOR_TEST_* are for the tests."""
    return sorted(
        key
        for key in os.environ
        if key.upper().startswith(PREFIX) and key != FILE_KEY and not key.startswith(TEST_PREFIX)
    )


def refuse_unknown(path: Path, table: Mapping[str, Any], sections: Collection[str]) -> None:
    """pydantic-settings ignores what fits no section, or adds a recipe; a typo must not pass."""
    for key in variables():
        section, *rest = key.upper().removeprefix(PREFIX).lower().split("__")
        if section not in sections:
            expected = ", ".join(f"{PREFIX}{name.upper()}__…" for name in sections)
            raise SettingsError(
                f"environment variable {key}: fits no section of {path}; expected one of {expected}"
            )
        if section == "camera" and rest:
            raise SettingsError(
                f"environment variable {key}: cameras are a list; expected all of them in "
                f"{PREFIX}CAMERA, as JSON"
            )
        recipes = table.get("recipe")
        if section == "recipe" and rest and isinstance(recipes, dict) and rest[0] not in recipes:
            raise SettingsError(
                f"environment variable {key}: found no table [recipe.{rest[0]}] in {path}; expected one of "
                f"{', '.join(recipes)} (capital letters only through {PREFIX}RECIPE, as JSON)"
            )


def not_json(error: NotJsonError, sections: Collection[str]) -> str:
    """What to say of a variable for a whole section that pydantic-settings cannot read."""
    section = next((name for name in sections if f'"{name}"' in str(error)), "")
    example = '[{"name": "cam1", …}]' if section == "camera" else '{"key": …}'
    return (
        f"environment variable {PREFIX}{section.upper()}: found text that is not JSON; expected all of "
        f"the section as JSON, such as {example}"
    )


def origin(path: Path, location: Location) -> str:
    """Name the environment variable in place of the file when it is the one that set the key."""
    if not location:  # keys that do not go together, wherever each comes from
        overrides = variables()
        return f"{path} with {', '.join(overrides)} from the environment" if overrides else str(path)
    variable = PREFIX + "__".join(str(part).upper() for part in location)
    for key in variables():
        name = key.upper()
        if name == variable or variable.startswith(name + "__") or name.startswith(variable + "__"):
            return f"environment variable {key}"
    return str(path)
