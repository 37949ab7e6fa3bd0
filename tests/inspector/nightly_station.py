"""A station with a day's parts in its log: pictures of a bar, a trained bundle, rows and frames."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from inspector.audit.frames import FrameStore
from inspector.audit.log import AuditLog
from inspector.audit.records import BundleRecord, Evidence, Inspection
from inspector.judges import active_bundle, open_engine
from inspector.model import bundle as bundles
from inspector.model import store
from inspector.model.records import Architecture, to_json
from inspector.nightly import commissioning
from inspector.settings import load
from tests.station import Station, camera
from training.calibrate import calibrate
from training.data import list_images
from training.fit import TrainOptions, train

SIDE = 64
ARCHITECTURE = Architecture(size=32, patch=8, dim=32, depth=1, heads=2, slots=20)
MORE = "[retrain]\nmin_parts = 20\nparts = 60\nauroc_margin = 0.1\nescape_margin = 0.3\n"


def part(rng: np.random.Generator, *, defect: bool = False, other: bool = False) -> np.ndarray:
    """A grey plate with a bright bar; another part has its bar across; a defect is a dark hole in it."""
    image = rng.normal(60, 4, (SIDE, SIDE, 3))
    x, y = rng.integers(24, 29, 2)
    if other:
        image[y : y + 10, 8:-8] += 110
    else:
        image[8:-8, x : x + 10] += 110
    if defect:
        image[y : y + 12, x : x + 10] = 30
    return np.clip(image, 0, 255).astype(np.uint8)


def draw(folder: Path, count: int, seed: int, **kind: bool) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:03}.png"), part(rng, **kind))
    return folder


def prepare(root: Path, port: int = 5020, *, epochs: int = 12, more: str = MORE) -> Station:
    """Trained on 40 parts, calibrated on 60."""
    station = Station(root, port)
    station.write(camera(trigger="camera", folder={"fps": 10.0}), recipe='method = "paper"', more=more)
    settings, models = load(station.config), station.data / "models" / "part"
    files = list_images(draw(root / "pictures", 40, 1))
    options = TrainOptions(
        architecture=ARCHITECTURE, epochs=epochs, learning_rate=2e-3, device="cpu", threads=1
    )
    trained = train(files, models, options, progress=False, reports=False)
    commissioning.keep(settings, "part", files)
    rng = np.random.default_rng(2)
    parts = [(str(number), part(rng)) for number in range(60)]
    threshold = calibrate(
        open_engine(trained, settings.engine), parts, rate=0.005, source="test", progress=False
    )
    store.activate(models, bundles.with_threshold(trained, threshold).id, "calibrate")
    return station


def inspect(station: Station, count: int, seed: int, *, days: float = 1.0, **kind: bool) -> list[int]:
    """Score and log so many parts, as the daemon would have done over the last days; ids of the rows."""
    settings, rng = load(station.config), np.random.default_rng(seed)
    bundle = active_bundle(settings, "part")
    engine, threshold = open_engine(bundle, settings.engine), bundle.threshold.value
    frames, ids = FrameStore(settings.frames), []
    with AuditLog.open(settings.database) as log:
        log.register_bundle(
            BundleRecord(id=bundle.id, recipe="part", architecture=to_json(bundle.architecture))
        )
        for number in range(count):
            image, when = part(rng, **kind), datetime.now(UTC) - timedelta(days=days * (1 - number / count))
            score = engine.score(image).score
            row = Inspection(
                time=when,
                camera="cam",
                recipe="part",
                verdict=1 if score <= threshold else 2,
                sequence=number,
                score=score,
                threshold=threshold,
                bundle=bundle.id,
            )
            ids.append(log.commit(row))
            log.add_evidence([Evidence(ids[-1], frame=frames.store(ids[-1], "cam", when, image))])
    return ids
