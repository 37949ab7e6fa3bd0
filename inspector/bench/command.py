"""From the options of `inspector bench` to what is measured."""

from __future__ import annotations

import tempfile
from pathlib import Path

from inspector.bench.show import show
from inspector.errors import SettingsError
from inspector.model.bundle import Bundle
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
    from inspector.bench.station import measure, model_judge, stub_judge

    judge = stub_judge if stub else model_judge(settings, recipe, cameras)
    show(measure(judge, parts=parts, fps=fps, size=size, cameras=cameras), out, plot)


def bench_engine(
    settings: Settings | None,
    recipe: str | None,
    method: str | None,
    preset: str,
    parts: int,
    fps: float,
    size: int,
    cameras: int,
    compare: bool,
    whole: bool,
    out: Path | None,
    plot: Path | None,
) -> None:
    """The engine: of the recipe's active bundle, or of random weights; whole: then the station with it."""
    from inspector.bench import engine, station

    chosen = EngineSettings() if settings is None else settings.engine
    rounds = max(3, min(ROUNDS, parts // BLOCKS))
    with tempfile.TemporaryDirectory(prefix="inspector-bench-") as folder:
        if method is None:
            bundle = _active(settings, recipe)
        else:
            bundle = engine.untrained(Path(folder), method, preset)
        figures = engine.measure(
            bundle, chosen, rounds=rounds, fps=fps, parts=parts, size=size, compare=compare
        )
        if whole:
            judge = station.bundle_judge(bundle, chosen, cameras)
            figures["station"] = station.measure(judge, parts=parts, fps=fps, size=size, cameras=cameras)
    show(figures, out, plot)


def _active(settings: Settings | None, recipe: str | None) -> Bundle:
    """Raises SettingsError and BundleError."""
    if settings is None:
        raise SettingsError("a station file is needed to bench a recipe's model; --method does without one")
    from inspector.judges import active_bundle

    names = sorted(settings.recipe)
    if recipe is None and len(names) == 1:
        recipe = names[0]
    if recipe not in settings.recipe:
        raise SettingsError(f"--recipe {recipe}: expected one of {', '.join(names)}")
    return active_bundle(settings, recipe)
