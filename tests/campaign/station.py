"""The station of a campaign: pictures that the model tells apart for certain, bundle, station.toml."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from tests import station
from tests.campaign import scene
from tests.campaign.program import COILS, NORMAL, ODD, PICTURES
from tests.campaign.recorder import BASE, PLC_BASE

DEADLINE_MS = 1500
TIMEOUT_MS = 200
SCORES = "scores.json"  # of each picture, which tell them apart
APART = 1e-2  # how far two scores are from each other at least, of the score


def write(folder: Path, port: int, min_free_mib: int, *, coils: bool = False) -> Path:
    """Everything that `inspector run` needs; returns the station file. Seconds: it loads the model once."""
    _pictures(folder / "pictures")
    scene.put(folder, PICTURES[0])
    recipe = folder / "data" / "models" / "part"
    scores = _scores(recipe, folder / "pictures")
    (folder / SCORES).write_text(json.dumps(scores))
    station.write_bundle(recipe, threshold=_between(scores))
    outputs = {"coils": {"passed": COILS[0], "rejected": COILS[1]}} if coils else {}
    camera = station.camera(
        base=BASE,
        plc=PLC_BASE,
        deadline_ms=DEADLINE_MS,
        silence_s=3.0,
        folder={"fps": 50.0},
        **outputs,
    )
    return _write(folder, port, camera, min_free_mib)


def write_genicam(folder: Path, port: int, min_free_mib: int) -> Path:
    """The same with a GenICam camera that runs free; every frame passes."""
    import genicam

    station.write_bundle(folder / "data" / "models" / "part")
    camera = f"""
[[camera]]
name = "cam"
recipe = "part"
trigger = "camera"
inspector_base = {BASE}
plc_base = {PLC_BASE}
deadline_ms = {DEADLINE_MS}
ring_slots = 8
silence_s = 3.0
[camera.genicam]
producer = "{Path(genicam.__file__).with_name("viky.cti")}"
serial = "0"
[camera.genicam.features]
PixelFormat = "Mono8"
Width = 128
Height = 128
AcquisitionFrameRate = 10.0
"""
    return _write(folder, port, camera, min_free_mib)


def _write(folder: Path, port: int, camera: str, min_free_mib: int) -> Path:
    one = station.Station(folder, port)
    one.write(
        camera,
        plc=f"timeout_ms = {TIMEOUT_MS}",
        log=f'frames = "not-passed"\nmin_free_mib = {min_free_mib}',
    )
    text = one.config.read_text().replace("min_free_mib = 1\n", "", 1)
    one.config.write_text(text)
    return one.config


def _pictures(folder: Path) -> None:
    """Of one grey each, and noise of their own."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in PICTURES:
        index = int(name[-7:-4])
        grey = 110 + 4 * index if name.startswith(NORMAL) else 9 + 2 * index
        picture = grey + generator.integers(-5, 6, (48, 48, 3))
        cv2.imwrite(str(folder / name), picture.astype(np.uint8))


def _scores(recipe: Path, pictures: Path) -> dict[str, float]:
    from inspector.camera.folder import read_image
    from inspector.model.engine import Engine

    engine = Engine(station.write_bundle(recipe), "cpu", "float32", 1)
    engine.warm_up()
    scores = {name: engine.score(read_image(pictures / name)).score for name in PICTURES}
    ordered = sorted(scores.values())
    if any(higher - lower < APART * higher for lower, higher in pairwise(ordered)):
        raise RuntimeError(f"the model cannot tell all pictures apart: {ordered}")
    return scores


def _between(scores: dict[str, float]) -> float:
    """A threshold with every normal picture well below and every odd one well above."""
    highest = max(score for name, score in scores.items() if name.startswith(NORMAL))
    lowest = min(score for name, score in scores.items() if name.startswith(ODD))
    if lowest < 1.5 * highest:
        raise RuntimeError(f"the model cannot tell the pictures apart: {highest:g} and {lowest:g}")
    return (highest + lowest) / 2
