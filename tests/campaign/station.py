"""The station of a campaign: pictures that the model tells apart for certain, bundle, station.toml."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests import station
from tests.campaign.recorder import BASE, PLC_BASE

DEADLINE_MS = 1500
TIMEOUT_MS = 200
PICTURES = 12  # of each kind
NORMAL, ODD = "normal", "odd"  # how their names begin


def write(folder: Path, port: int, min_free_mib: int) -> Path:
    """Everything that `inspector run` needs; returns the station file. Seconds: it loads the model once."""
    _pictures(folder / "pictures")
    recipe = folder / "data" / "models" / "part"
    station.write_bundle(recipe, threshold=_between(recipe, folder / "pictures"))
    camera = station.camera(
        base=BASE,
        plc=PLC_BASE,
        deadline_ms=DEADLINE_MS,
        silence_s=3.0,
        folder={"order": "shuffled", "fps": 50.0},
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
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(PICTURES):
        for name, grey in ((NORMAL, 130), (ODD, 10)):
            picture = grey + generator.integers(-5, 6, (48, 48, 3))
            cv2.imwrite(str(folder / f"{name}-{index:03}.png"), picture.astype(np.uint8))


def _between(recipe: Path, pictures: Path) -> float:
    """A threshold with every normal picture well below and every odd one well above."""
    from inspector.camera.folder import read_image
    from inspector.model.engine import Engine

    engine = Engine(station.write_bundle(recipe), "cpu", "float32", 1)
    engine.warm_up()

    def scores(kind: str) -> list[float]:
        return [engine.score(read_image(file)).score for file in sorted(pictures.glob(f"{kind}-*"))]

    highest, lowest = max(scores(NORMAL)), min(scores(ODD))
    if lowest < 1.5 * highest:
        raise RuntimeError(f"the model cannot tell the pictures apart: {highest:g} and {lowest:g}")
    return (highest + lowest) / 2
