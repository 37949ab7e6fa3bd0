"""What the commands of the command line do; each yields or prints what a person wants to read."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from inspector.errors import SettingsError
from inspector.settings import CameraSettings, Recipe, Settings

if TYPE_CHECKING:
    from inspector.model.records import Threshold
    from inspector.plc.simulator_line import Line


BUSY_S = 0.2  # how long a decision waits for another process that writes to the log
SWITCH_S = 0.0005  # python's own 5 ms would let the evidence thread hold up a verdict for as long


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
    )
    files = list_images(images)
    yield f"recipe '{recipe}': {len(files)} pictures in {images}, method {options.architecture.method}"
    if asked is None:
        yield from _proposal(recipe, chosen, options.architecture.method, preset or chosen.preset)
    bundle = train(files, settings.models / recipe, options)
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


def calibrate_recipe(
    settings: Settings,
    recipe: str,
    images: Path | None,
    camera: str | None,
    frames: int,
    rate: float | None,
    confidence: float | None,
    dry_run: bool,
) -> Iterator[str]:
    """Compute the threshold; store it in a new bundle and make that the active one."""
    if (images is None) == (camera is None):
        raise SettingsError("give exactly one of --images and --camera: the normal parts come from there")
    chosen = settings.recipe[recipe]
    target = _fraction("--rate", rate, chosen.false_reject_rate)
    sure = _fraction("--confidence", confidence, chosen.confidence)
    one = None if camera is None else _camera(settings, camera, recipe)

    # only now, for these take seconds and a slip is told at once
    from inspector.judges import active_bundle, open_engine
    from inspector.model import bundle as bundles
    from inspector.model import store
    from training.calibrate import calibrate

    bundle = active_bundle(settings, recipe)
    engine = open_engine(bundle, settings.engine)
    engine.warm_up()
    if one is None:
        assert images is not None  # noqa: S101 - one of the two is given
        from training.data import list_images, read_image

        files = list_images(images)
        source, total = str(images), len(files)
        pictures = ((str(file), read_image(file)) for file in files)
    else:
        from inspector.capture import capture

        source, total = f"camera {one.name}", frames
        taken = capture(one, frames, settings.station.startup_timeout_s)
        pictures = ((frame.source, frame.image) for frame in taken)
    threshold = calibrate(engine, pictures, rate=target, confidence=sure, source=source, total=total)
    yield from _explain(threshold)
    if dry_run:
        yield "nothing was changed (--dry-run)"
        return
    child = bundles.with_threshold(bundle, threshold)
    store.activate(settings.models / recipe, child.id, "calibrate")
    yield f"bundle {child.id[:12]} is active; a running daemon takes it between two parts"


def _explain(threshold: Threshold) -> Iterator[str]:
    rate, sure = f"{threshold.target_rate:.3g}", f"{threshold.confidence:.0%}"
    yield f"threshold {threshold.value:.6g}: score {threshold.rank} of {threshold.n} normal parts in order"
    if threshold.proven:
        yield f"at most {rate} of normal parts will be rejected, with {sure} confidence"
        return
    from training.calibrate import parts_needed

    needed = parts_needed(threshold.target_rate, threshold.confidence)
    yield (
        f"too few parts to prove {rate} at {sure}: {needed - threshold.n} more are needed ({needed} in all); "
        f"the highest score is taken, and the {threshold.n} parts prove {threshold.proven_rate:.3g}"
    )


def _fraction(option: str, given: float | None, default: float) -> float:
    if given is not None and not 0 < given < 1:
        raise SettingsError(f"{option} {given}: expected a number between 0 and 1, such as 0.005")
    return default if given is None else given


def _camera(settings: Settings, name: str | None, recipe: str) -> CameraSettings:
    for camera in settings.camera:
        if camera.name == name:
            if camera.recipe != recipe:
                raise SettingsError(f"--camera {name}: it runs recipe '{camera.recipe}', not '{recipe}'")
            return camera
    known = ", ".join(camera.name for camera in settings.camera)
    raise SettingsError(f"--camera {name}: no such camera; expected one of {known}")


def run_station(settings: Settings) -> None:
    """The daemon until it is stopped."""
    from inspector import logs
    from inspector.opening import StationLog, alone

    logs.configure(settings.logging)
    sys.setswitchinterval(SWITCH_S)
    with alone(settings.station.data), StationLog(settings, BUSY_S) as log:
        from inspector import (
            judges,  # seconds of imports, which a log that will not do does not wait for
        )
        from inspector.daemon import Daemon

        daemon = Daemon(settings, log, judges.load_for_line(settings, log))
        gc.freeze()  # what is loaded by now stays: no collection needs to walk through torch again
        try:
            daemon.run()
        finally:
            gc.unfreeze()  # or triton tells of hundreds of leaks at the exit, below the message that matters


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
