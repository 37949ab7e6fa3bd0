"""The real daemon on streams of frames, timed stage by stage.

PLC and camera are processes of their own, as on a line: they do not share the daemon's interpreter.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray
from tqdm import tqdm

from inspector import __version__, logs
from inspector.answer import Answer
from inspector.audit.log import AuditLog
from inspector.audit.records import BundleRecord
from inspector.bench import disk
from inspector.channel import Judge, Picture, Scored
from inspector.daemon import Daemon
from inspector.errors import SettingsError
from inspector.interpreter import prompt
from inspector.model.bundle import Bundle
from inspector.model.records import to_json
from inspector.plc.simulator import CameraMap, Simulator
from inspector.settings import CameraSettings, EngineSettings, Folder, Logging, Plc, Recipe, Settings, Station

# in the order in which a part passes through them
STAGES = ("wait", "preprocess", "model", "map", "commit", "modbus")
MODEL_STAGES = ("preprocess", "model", "map")
PICTURES = 16
WARM_UP_PARTS = 20


@dataclass
class StubScored:
    """What the stub says: nothing abnormal anywhere."""

    score: float = 0.0
    map: NDArray[np.float32] = field(default_factory=lambda: np.zeros((128, 128), np.float32))
    stages: dict[str, float] = field(default_factory=dict)


class StubScorer:
    """No model: what remains is the station's own overhead."""

    together = 1

    def warm_up(self) -> None:
        """Nothing to warm."""

    def keep_warm(self) -> None:
        """Nothing to keep."""

    def self_test(self) -> None:
        """Nothing to test."""

    def score_first(self, images: Sequence[Picture], left_ms: float) -> Sequence[Scored]:
        """A constant score, of one frame at a time."""
        return [StubScored()]


JudgeOf = Callable[[AuditLog], Judge]  # with its bundle registered in that log


def measure(judge: JudgeOf, *, parts: int, fps: float, size: int, cameras: int) -> dict[str, Any]:
    """The figures of one run: milliseconds by stage, station overhead, and how it was measured.

    fps: of each camera. parts: of all. Raises what judge does.
    """
    with tempfile.TemporaryDirectory(prefix="inspector-bench-") as folder:
        return _measure(judge, parts, fps, size, cameras, Path(folder))


def _measure(
    judge_of: JudgeOf, parts: int, fps: float, size: int, cameras: int, folder: Path
) -> dict[str, Any]:
    logs.configure(Logging(level="error"))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    plc = context.Process(target=_serve, args=(theirs, cameras), daemon=True)
    plc.start()
    theirs.close()
    try:
        station = _station(folder, ours.recv(), fps, size, cameras)
        with AuditLog.open(station.database) as log:
            judge = judge_of(log)
            answers, memory = _inspect(station, log, judge, parts)
        synced = disk.syncs(folder, fps * cameras)
    finally:
        ours.send(None)
        plc.join()
    figures = summarise([answer.stages for answer in answers])
    return figures | {
        "verdicts": len(answers),
        "faults": sum(answer.decision.reason is not None for answer in answers),
        "fps": fps,
        "cameras": cameras,
        "frame": [size, size],
        "scorer": judge.bundle,
        "memory_mib": memory,
        "disk_ms": synced,
        "version": __version__,
    }


def summarise(stages: list[dict[str, float]]) -> dict[str, Any]:
    """p50, p99 and maximum of each stage, of the total, and of the overhead: the total less the model."""
    columns = {name: [part.get(name, 0.0) for part in stages] for name in STAGES}
    columns["total"] = [part["total"] for part in stages]
    columns["overhead"] = [
        part["total"] - sum(part.get(name, 0.0) for name in MODEL_STAGES) for part in stages
    ]
    return {
        "stages_ms": {
            name: {
                "p50": float(np.percentile(values, 50)),
                "p99": float(np.percentile(values, 99)),
                "max": float(np.max(values)),
            }
            for name, values in columns.items()
        }
    }


def _inspect(
    station: Settings, log: AuditLog, judge: Judge, parts: int
) -> tuple[list[Answer], dict[str, float]]:
    answers: list[Answer] = []
    process = psutil.Process()
    memory: dict[str, float] = {}
    with tqdm(total=parts, desc="bench", unit="part", leave=False) as bar:

        def observe(answer: Answer) -> None:
            answers.append(answer)
            if len(answers) == WARM_UP_PARTS:
                memory["start"] = process.memory_info().rss / 2**20
            if len(answers) > WARM_UP_PARTS:
                bar.update()
            if len(answers) >= parts + WARM_UP_PARTS:
                daemon.stop()

        daemon = Daemon(station, log, {"bench": judge}, observe)
        with prompt():
            daemon.run()
    memory["end"] = process.memory_info().rss / 2**20
    return answers[WARM_UP_PARTS : WARM_UP_PARTS + parts], memory


def _station(folder: Path, port: int, fps: float, size: int, cameras: int) -> Settings:
    pictures = folder / "pictures"
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for index in range(PICTURES):
        noise = generator.integers(0, 255, (size // 8 + 1, size // 8 + 1, 3), np.uint8)
        picture = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(pictures / f"{index:03}.png"), picture)
    looking = tuple(
        CameraSettings(
            name=name,
            recipe="bench",
            trigger="camera",
            inspector_base=inspector_base,
            plc_base=plc_base,
            deadline_ms=60_000,
            folder=Folder(path=pictures, fps=fps),
        )
        for name, inspector_base, plc_base in _places(cameras)
    )
    return Settings(
        station=Station(name="bench", data=folder / "data"),
        plc=Plc(port=port),
        camera=looking,
        recipe={"bench": Recipe()},
    )


def stub_judge(log: AuditLog) -> Judge:
    """No model."""
    log.register_bundle(BundleRecord(id="stub", recipe="bench", architecture={"method": "stub"}))
    return Judge(StubScorer(), "stub", 1.0, None)


def model_judge(settings: Settings | None, recipe: str | None, cameras: int) -> JudgeOf:
    """The recipe's active bundle, as the daemon has it. Raises SettingsError, then or later."""
    from inspector.judges import load

    if settings is None:
        raise SettingsError("a station file is needed to bench a model; --stub measures without one")

    def judge(log: AuditLog) -> Judge:
        judges = load(settings, log, cameras)
        if recipe is None and len(judges) == 1:
            return next(iter(judges.values()))
        if recipe not in judges:
            raise SettingsError(f"--recipe {recipe}: expected one of {', '.join(judges)}")
        return judges[recipe]

    return judge


def bundle_judge(bundle: Bundle, settings: EngineSettings, cameras: int) -> JudgeOf:
    """Any bundle, calibrated or not."""
    from inspector.judges import open_engine

    def judge(log: AuditLog) -> Judge:
        record = BundleRecord(id=bundle.id, recipe="bench", architecture=to_json(bundle.architecture))
        log.register_bundle(record)
        engine = open_engine(bundle, settings, cameras)
        engine.warm_up()
        return Judge(engine, bundle.id, 1.0 if bundle.threshold is None else bundle.threshold.value, None)

    return judge


def _places(cameras: int) -> list[tuple[str, int, int]]:
    """Name and register bases of each camera."""
    return [(f"bench{n}", 100 + 100 * n, 10_000 + 100 * n) for n in range(cameras)]


def _serve(pipe: Connection, cameras: int) -> None:
    """The PLC's process: serve until told to stop."""
    with Simulator(cameras=[CameraMap(*place) for place in _places(cameras)]) as simulator, prompt():
        pipe.send(simulator.port)
        pipe.recv()
