"""From the options of `inspector bench` to what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inspector.bench.show import show
from inspector.errors import SettingsError
from inspector.settings import EngineSettings, Settings

ROUNDS = 30  # of all rivals in turns, at most
BLOCKS = 10  # parts to one round


def bench(
    settings: Settings | None,
    recipe: str | None,
    stub: bool,
    parts: int,
    fps: float,
    size: int,
    cameras: int,
    out: Path | None,
    plot: Path | None,
) -> None:
    """The station: run, print the table, write what was asked for."""
    from inspector.bench.station import measure

    figures = measure(settings, recipe, stub=stub, parts=parts, fps=fps, size=size, cameras=cameras)
    show(figures, out, plot)


def bench_engine(
    settings: Settings | None,
    recipe: str | None,
    method: str | None,
    preset: str,
    parts: int,
    fps: float,
    size: int,
    compare: bool,
    out: Path | None,
    plot: Path | None,
) -> None:
    """The engine: of the recipe's active bundle, or of random weights."""
    from inspector.bench.engine import measure, measure_untrained

    chosen = EngineSettings() if settings is None else settings.engine
    how: dict[str, Any] = {
        "rounds": max(3, min(ROUNDS, parts // BLOCKS)),
        "fps": fps,
        "parts": parts,
        "size": size,
        "compare": compare,
    }
    if method is not None:
        show(measure_untrained(method, preset, chosen, **how), out, plot)
        return
    if settings is None:
        raise SettingsError("a station file is needed to bench a recipe's model; --method does without one")
    from inspector.judges import active_bundle

    names = sorted(settings.recipe)
    if recipe is None and len(names) == 1:
        recipe = names[0]
    if recipe not in settings.recipe:
        raise SettingsError(f"--recipe {recipe}: expected one of {', '.join(names)}")
    show(measure(active_bundle(settings, recipe), chosen, **how), out, plot)
