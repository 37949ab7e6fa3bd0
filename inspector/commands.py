"""What the commands of the command line do; each yields or prints what a person wants to read."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from inspector.settings import Recipe, Settings

if TYPE_CHECKING:
    from inspector.plc.simulator_line import Line


BUSY_S = 0.2  # how long a decision waits for another process that writes to the log


def train_recipe(
    settings: Settings,
    recipe: str,
    images: Path,
    method: str | None,
    preset: str | None,
    epochs: int | None,
    seed: int,
) -> Iterator[str]:
    """Train, store the bundle and make it the active one."""
    from inspector.model import store
    from inspector.nightly import commissioning
    from training import distributed
    from training.data import list_images
    from training.fit import TrainOptions, train
    from training.options import METHOD
    from training.report import path_of

    chosen = settings.recipe[recipe]
    asked = method or chosen.method
    options = TrainOptions.of(
        method=asked or METHOD,
        preset=preset or chosen.preset,
        roi=chosen.region,
        epochs=epochs,
        seed=seed,
        threads=settings.engine.threads,
        device=settings.engine.device,
        backbone=chosen.backbone,
        backbone_weights=str(chosen.backbone_weights or ""),
        symmetries=chosen.symmetries,
        exposure=chosen.exposure,
    )
    files = list_images(images)
    if not distributed.leading():  # started by torchrun: it helps the first one, which does the rest
        train(files, settings.models / recipe, options)
        return
    yield f"recipe '{recipe}': {len(files)} pictures in {images}, method {options.architecture.method}"
    if asked is None:
        yield from _proposal(recipe, chosen, options.architecture.method, preset or chosen.preset)
    bundle = train(files, settings.models / recipe, options)
    if options.exposure == "auto" and bundle.preprocessing.exposure == "even":
        yield "these parts come in different light: the model sees all parts in even light (exposure)"
    if kept := commissioning.keep(settings, recipe, files):
        place = commissioning.folder(settings, recipe)
        yield f"{kept} pictures are kept in {place}: each retraining takes some of them"
    store.activate(settings.models / recipe, bundle.id, "train")
    if (page := path_of(bundle)).is_file():
        yield f"report of the training: {page}"
    yield f"bundle {bundle.id[:12]} is active, not calibrated: run `inspector calibrate`"


def _proposal(recipe: str, chosen: Recipe, method: str, preset: str) -> Iterator[str]:
    """Where nobody named a method and a better one would work here, say so."""
    from inspector.model.records import FEATURE_PRESETS
    from training.proposal import weights_at_hand

    backbone = chosen.backbone or FEATURE_PRESETS[preset].backbone
    file = weights_at_hand(backbone, chosen.backbone_weights)
    if method != "feature" and file is not None:
        yield (
            f'pretrained weights are at hand: method = "feature" with backbone_weights = "{file}" in '
            f"[recipe.{recipe}] usually separates better than {method}"
        )


def run_station(settings: Settings) -> None:
    """The daemon until it is stopped."""
    from inspector import logs
    from inspector.opening import StationLog, alone

    logs.configure(settings.logging)
    with alone(settings.station.data), StationLog(settings, BUSY_S) as log:
        from inspector import (
            judges,  # seconds of imports, which a log that will not do does not wait for
        )
        from inspector.daemon import Daemon
        from inspector.interpreter import prompt
        from inspector.supervision import loading

        daemon = Daemon(settings, log, judges.load_for_line(settings, log, loading=loading))
        with prompt():
            daemon.run()


def simulate_plc(
    settings: Settings, host: str | None, port: int | None, line: bool, period: float, parts: int | None
) -> None:
    """Serve the registers of every camera until interrupted, or until `parts` parts are answered."""
    from rich.console import Console

    from inspector.plc.connect import register_order
    from inspector.plc.simulator import CameraMap, Simulator
    from inspector.plc.simulator_line import Line
    from inspector.plc.simulator_view import show

    cameras = [CameraMap(one.name, one.inspector_base, one.plc_base) for one in settings.camera]
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    simulator = Simulator(
        host or settings.plc.host,
        settings.plc.port if port is None else port,
        cameras=cameras,
        order=register_order(settings.plc),
    )
    with simulator, ExitStack() as stack:
        lines = [
            stack.enter_context(
                Line(
                    simulator,
                    camera.name,
                    period_s=period if line and camera.trigger == "plc" else None,
                    timeout_s=2 * camera.deadline_ms / 1000,
                    recipe=settings.recipe[camera.recipe].number,
                    parts=parts,
                )
            )
            for camera in settings.camera
            if line
        ]
        if lines and parts is not None:
            Thread(target=_stop_when_done, args=(lines, parts, stop), daemon=True).start()
        console = Console(highlight=False)
        console.print(f"PLC simulator on {simulator.host}:{simulator.port}; Ctrl-C ends it")
        try:
            show(simulator, lines, console, stop)
        except KeyboardInterrupt:
            stop.set()


def _stop_when_done(lines: list[Line], parts: int, stop: Event) -> None:
    while not all(line.counts.answered + line.counts.unanswered >= parts for line in lines):
        if stop.wait(0.1):
            return
    stop.set()
