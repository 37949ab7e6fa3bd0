"""One run of the benchmark: train, calibrate on held-out normal parts, evaluate on the test set, record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from inspector.errors import TrainingError
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.engine import Engine
from training import metrics
from training.calibrate import calibrate
from training.data import read_image
from training.datasets import Category
from training.environment import hardware, versions
from training.evaluate import Evaluation, evaluate
from training.fit import TrainOptions, train
from training.sheets import draw
from training.tables import PER_IMAGE, PLAIN, write_json


@dataclass(frozen=True)
class Protocol:
    """What is the same for every run, whatever the method."""

    holdout: float = 0.2  # share of the normal parts that is calibrated on and never trained on
    rate: float = 0.05  # of false rejects, asked of the calibration
    confidence: float = 0.9  # with which the calibration is to prove that rate
    precision: str = "float32"
    device: str = "auto"
    threads: int = 0


@dataclass(frozen=True)
class Run:
    """One method in one variant on one category with one seed."""

    category: Category
    variant: str
    options: TrainOptions
    protocol: Protocol
    command: str

    @property
    def method(self) -> str:
        """The method's name."""
        return self.options.architecture.method

    @property
    def name(self) -> Path:
        """Where its files lie, relative to the folders of a benchmark."""
        variant = "" if self.variant == PLAIN else f"-{self.variant}"
        folder = Path(self.category.dataset) / self.category.name
        return folder / f"{self.method}{variant}-seed{self.options.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """All that a repetition needs."""
        return {"training": asdict(self.options), "protocol": asdict(self.protocol)}


def held_out(normals: Sequence[Path], share: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Normal parts to train on and to calibrate on, drawn by the seed. Raises TrainingError."""
    count = round(share * len(normals))
    if not 0 < count < len(normals):
        raise TrainingError(
            f"Holding out {share:g} of {len(normals)} normal parts leaves {len(normals) - count} to train on "
            f"and {count} to calibrate on; expected at least one of each."
        )
    chosen = set(np.random.default_rng(seed).permutation(len(normals))[:count].tolist())
    return (
        [path for k, path in enumerate(normals) if k not in chosen],
        [path for k, path in enumerate(normals) if k in chosen],
    )


def execute(run: Run, out: Path, *, progress: bool = True, reports: bool = False) -> dict[str, Any]:
    """Do the run, or go on where it was interrupted. Writes its sheets and, last, its record.

    reports: a report of the training too.

    Raises DataError, ModelError, TrainingError.
    """
    started = datetime.now(UTC)
    protocol, seed = run.protocol, run.options.seed
    learn, hold = held_out(run.category.normals, protocol.holdout, seed)
    recipe = out / "models" / run.name
    bundle = trained_before(learn, recipe, run.options) or train(
        learn, recipe, run.options, progress=progress, reports=reports
    )
    began = perf_counter()
    engine = Engine(bundle, protocol.device, protocol.precision, protocol.threads)
    pictures = ((str(path), read_image(path)) for path in hold)
    threshold = calibrate(
        engine,
        pictures,
        rate=protocol.rate,
        confidence=protocol.confidence,
        source=f"{len(hold)} held-out normal parts of {run.category.dataset}/{run.category.name}",
        total=len(hold),
        progress=progress,
    )
    bundle = bundles.with_threshold(bundle, threshold)
    calibrated = perf_counter()
    evaluation = evaluate(engine, run.category.test, bundle.preprocessing.roi, progress=progress)
    evaluated = perf_counter()
    draw(engine, evaluation, threshold.value, bundle.preprocessing.roi, out / "sheets" / run.name)
    record = {
        "dataset": run.category.dataset,
        "category": run.category.name,
        "method": run.method,
        "variant": run.variant,
        "seed": seed,
        **measured(evaluation, threshold.value),
        "threshold": asdict(threshold),
        "n_train": len(learn),
        "n_calibration": len(hold),
        "train_seconds": bundle.provenance["seconds"],  # over all its pieces
        "calibrate_seconds": calibrated - began,
        "evaluate_seconds": evaluated - calibrated,
        "device": engine.device,
        "precision": engine.precision,
        "bundle": bundle.id,
        "losses": bundle.provenance["curve"][-1],
        "memory": bundle.provenance["memory"],
        "synthetic": bundle.provenance["synthetic"],
        "findings": bundle.provenance["findings"],
        "settings": run.settings,
        "exposure": bundle.preprocessing.exposure,
        "command": run.command,
        "hardware": hardware(),
        "versions": versions(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        PER_IMAGE: [
            {"image": f"{s.path.parent.name}/{s.path.name}", "defect": s.defect, "score": float(score)}
            for s, score in zip(evaluation.samples, evaluation.scores, strict=True)
        ],
    }
    write_json(out / "runs" / run.name.with_name(run.name.name + ".json"), record)
    return record


def trained_before(images: Sequence[Path], recipe: Path, options: TrainOptions) -> Bundle | None:
    """The bundle of a run that was interrupted after its training, None if there is none."""
    asked = comparable(asdict(options))
    found = [b for b in bundles.listing(recipe) if comparable(b.provenance["options"]) == asked]
    if not found:
        return None
    files = sorted([path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in images)
    same = [b for b in found if sorted(b.provenance["trained_on"] + b.provenance["held_out"]) == files]
    return bundles.load(same[0].path) if same else None


def comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back, without those that do not change what is learned."""
    read: dict[str, Any] = json.loads(json.dumps(settings))
    return {key: value for key, value in read.items() if key not in ("device", "threads")}


def measured(evaluation: Evaluation, threshold: float) -> dict[str, Any]:
    """All metrics of an evaluation, with their 95 % intervals where they speak of images."""
    labels, scores = evaluation.labels, evaluation.scores
    rates = metrics.rates(labels, scores, threshold)
    found: dict[str, Any] = {}
    for name, metric in (
        ("image_auroc", metrics.image_auroc),
        ("average_precision", metrics.average_precision),
        ("f1_max", metrics.f1_max),
    ):
        found[name] = metric(labels, scores)
        found[f"{name}_interval"] = metrics.bootstrap(metric, labels, scores)
    good = ~labels
    defects = np.array([sample.defect or "" for sample in evaluation.samples])
    return {
        **found,
        "image_auroc_by_defect": {
            str(defect): metrics.image_auroc(labels[one], scores[one])
            for defect in sorted({*defects} - {""})
            for one in [good | (defects == defect)]
        },
        "brightness_auroc": metrics.image_auroc(labels, evaluation.brightness),
        "pixel_auroc": evaluation.pixels.auroc(),
        "pixel_average_precision": evaluation.pixels.average_precision(),
        "aupro": evaluation.pixels.pro(),
        "false_reject_rate": rates.false_reject,
        "false_reject_interval": rates.false_reject_interval,
        "escape_rate": rates.escape,
        "escape_interval": rates.escape_interval,
        "ms_per_image": float(np.median(evaluation.milliseconds)),
        "ms_per_image_p99": float(np.quantile(evaluation.milliseconds, 0.99)),
        "n_good": int(good.sum()),
        "n_defective": int(labels.sum()),
        "n_without_mask": len(evaluation.without_mask),
        "n_regions": evaluation.pixels.regions,
    }
