"""What several commands have in common: the station file, and the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspector.errors import SettingsError

if TYPE_CHECKING:
    from inspector.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Station file; default: INSPECTOR_CONFIG, else ./station.toml."),
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="Recipe in the station file; may be left out if there is one.")
]


def settings(config: Path | None) -> Settings:
    """The station that was asked for. Raises SettingsError."""
    from inspector.settings import config_path, load

    return load(config_path(config))


def one_recipe(settings: Settings, asked: str | None) -> str:
    """The recipe that was asked for, or the only one. Raises SettingsError."""
    known = sorted(settings.recipe)
    if asked in settings.recipe:
        return asked
    if asked is not None:
        raise SettingsError(f"--recipe {asked}: no such recipe; expected one of {', '.join(known)}")
    if len(known) != 1:
        raise SettingsError(f"--recipe is needed: the station has the recipes {', '.join(known)}")
    return known[0]
