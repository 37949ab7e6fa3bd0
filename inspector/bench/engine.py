"""The engine alone: flat out beside its rivals and its floor, at a line's cadence, after a rest."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from inspector import __version__
from inspector.bench.floor import floor, probes, work
from inspector.bench.rivals import anomalib, plain
from inspector.bench.timing import after_idling, at, in_turns, spread
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.engine import Engine, resolve
from inspector.model.network import build
from inspector.model.records import Preprocessing
from inspector.settings import EngineSettings

IDLE_S = 2.0
IDLES = 5


def untrained(folder: Path, method: str, size: str) -> Bundle:
    """A bundle of random weights: as fast as a trained one. Raises ModelError."""
    from training.options import TrainOptions

    torch.manual_seed(0)
    options = TrainOptions.of(method=method, preset=size)
    network = build(options.architecture)
    for name, tensor in network.state_dict().items():
        if name.endswith("slots"):
            tensor.normal_()
    return bundles.write(
        folder,
        network.state_dict(),
        options.architecture,
        Preprocessing(size=options.architecture.size),
        options.chosen_scoring(),
        provenance={"method": method, "preset": size},
    )


def measure(
    bundle: Bundle, settings: EngineSettings, *, rounds: int, fps: float, parts: int, size: int, compare: bool
) -> dict[str, Any]:
    """The figures, in milliseconds of one part from picture to score and map. Raises ModelError."""
    process, device = psutil.Process(), resolve(settings.device)
    before = process.memory_info().rss
    engine = Engine(bundle, settings.device, settings.precision, settings.threads, runtime=settings.runtime)
    engine.warm_up()
    resident = process.memory_info().rss
    image = _picture(size)
    score = _scoring(engine, image)
    runs = {"engine": score} | probes(device, engine.precision)
    others = {"plain eager float32": plain(bundle, device, image)}
    others |= anomalib(bundle, device, image) if compare else {}
    many = (1, 8, 16) if device.type == "cuda" else (1, 2, 4)
    runs |= others | {f"batch {count}": _batch(engine, image, count) for count in many}
    times = in_turns(runs, rounds)
    figures = {name: times[name].figures() for name in ("engine", *others)}
    least = floor(work(bundle, engine.precision), device, times)
    stages = [engine.score(image).stages for _ in range(parts)]
    return {
        "version": __version__,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "device": engine.device,
        "precision": engine.precision,
        "runtime": engine.runtime,
        "threads": torch.get_num_threads(),
        "bundle": bundle.id,
        "architecture": {"method": bundle.architecture.method, "size": bundle.architecture.size},
        "picture": [size, size],
        "in_turns_ms": figures,
        "floor": least,
        "ratios": {
            "to_floor": figures["engine"]["p50"] / least["ms"],
            "to_floor_cpu": figures["engine"]["cpu_p50"] / least["cpu_ms"],
            **{f"faster_than {name}": figures[name]["p50"] / figures["engine"]["p50"] for name in others},
            **{
                f"faster_than_cpu {name}": figures[name]["cpu_p50"] / figures["engine"]["cpu_p50"]
                for name in others
            },
        },
        "batches_ms_a_part": {
            count: {k: v / count for k, v in times[f"batch {count}"].figures().items()} for count in many
        },
        "flat_out_ms": {name: spread([part[name] for part in stages]) for name in stages[0]},
        "cadence_ms": {"fps": fps} | at(fps, score, parts).figures(),
        "after_idle_ms": {"idle_s": IDLE_S} | after_idling(IDLE_S, score, IDLES, engine.keep_warm).figures(),
        "memory_mib": _memory(before, resident, device),
    }


def _scoring(engine: Engine, image: NDArray[np.uint8]) -> Any:
    return lambda: engine.score(image)


def _batch(engine: Engine, image: NDArray[np.uint8], count: int) -> Any:
    return lambda: engine.score_together([image] * count)


def _picture(size: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 255, (size // 8 + 1, size // 8 + 1, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def _memory(before: int, resident: int, device: torch.device) -> dict[str, float]:
    """Resident before the model was loaded and with it warm; the peak on the GPU is that of all rivals."""
    memory = {"before": before / 2**20, "with_the_engine": resident / 2**20}
    if device.type == "cuda":
        memory["device_peak"] = torch.cuda.max_memory_allocated(device) / 2**20
    return memory
