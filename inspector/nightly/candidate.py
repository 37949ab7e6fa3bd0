"""What a night brings forth: trained as the active bundle was, calibrated on parts that it never saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch

from inspector.calibration import sampled
from inspector.judges import open_engine
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.records import EXTRAPOLATED
from inspector.nightly import collect
from inspector.nightly.collect import Selection
from inspector.normals import Source
from inspector.settings import Settings
from training.calibrate import parts_needed, threshold_of
from training.data import read_image
from training.fit import TrainOptions
from training.tail import fewest_parts

STAGING = "retraining"  # in the data folder
WARM = 0.3  # share of steps and of the learning rate that a warm start takes
TOLD = {collect.CALIBRATION, collect.COMMISSIONING}  # chosen by people, whatever the model said of them


@dataclass(frozen=True)
class Night:
    """What one run was asked to do."""

    settings: Settings
    recipe: str
    seed: int
    epochs: int | None = None
    start: str = "scratch"

    @property
    def models(self) -> Path:
        """The recipe's bundles."""
        return self.settings.models / self.recipe

    @property
    def staging(self) -> Path:
        """Where the candidate is made."""
        return self.settings.station.data / STAGING / self.recipe


def options(night: Night, active: Bundle) -> TrainOptions:
    """As the active bundle was trained, in network, picture and scoring; the recipe says what is new."""
    settings, recipe = night.settings, night.settings.recipe[night.recipe]
    method = recipe.method or active.architecture.method
    options = TrainOptions.of(
        method=method,
        preset=recipe.preset,
        roi=recipe.region,
        epochs=night.epochs,
        seed=night.seed,
        threads=settings.engine.threads,
        device=settings.engine.device,
        backbone=recipe.backbone,
        backbone_weights=str(recipe.backbone_weights or ""),
        symmetries=recipe.symmetries,
        exposure=recipe.exposure,
    )
    if method == active.architecture.method:
        options = replace(
            options,
            architecture=active.architecture,
            scoring=active.scoring,
            exposure=recipe.exposure or active.preprocessing.exposure,
        )
        if active.architecture.backbone:
            options = replace(options, backbone_weights=str(_backbone(night, active)))
    if warm(night, active) is not None:
        options = replace(
            options,
            epochs=max(1, round(WARM * options.epochs)),
            steps=round(WARM * options.steps),
            learning_rate=WARM * options.learning_rate,
            memory_after=0.0,
        )
    return options


def warm(night: Night, active: Bundle) -> Bundle | None:
    """What to start from. Another method or exposure in the recipe means to start afresh."""
    recipe = night.settings.recipe[night.recipe]
    same = recipe.method in (None, active.architecture.method)
    same = same and recipe.exposure in (None, active.preprocessing.exposure)
    return active if night.start == "warm" and same else None


def _backbone(night: Night, active: Bundle) -> Path:
    """The pretrained weights travel in the bundle: a night needs no file and no download."""
    prefix, file = "backbone.model.", night.staging / "backbone.safetensors"
    tensors = {k.removeprefix(prefix): t for k, t in bundles.weights(active).items() if k.startswith(prefix)}
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, file)
    return file


def calibrated(night: Night, active: Bundle, trained: Bundle, chosen: Selection, manifest: bytes) -> Bundle:
    """With the threshold that parts put which people have called normal, as `inspector calibrate` puts it.

    Where these prove less than the active threshold is proven by, what passed helps, though it lacks what was
    rejected, and may hold escapes.
    """
    recipe = night.settings.recipe[night.recipe]
    engine = open_engine(trained, night.settings.engine)
    engine.warm_up()
    now = active.threshold
    enough = parts_needed(recipe.false_reject_rate, recipe.confidence)
    told = [one for one in chosen.apart if one.why in TOLD]
    taken, what = chosen.apart, "parts kept apart"
    if len(told) >= (min(enough, now.n) if now is not None else enough):
        taken, what = told, "parts kept apart that people have called normal"
    source = Source(f"{len(taken)} {what}", len(taken), ((one.path, read_image(one.file)) for one in taken))
    sample = sampled(engine, source)
    threshold = threshold_of(
        engine,
        sample.scores.tolist(),
        rate=recipe.false_reject_rate,
        confidence=recipe.confidence,
        source=source.name,
        fit_tail=now is not None and now.method == EXTRAPOLATED and len(taken) >= fewest_parts(),
    )
    evidence = {"manifest_sha256": collect.sha256_of(manifest), "start": night.start}
    return bundles.with_threshold(trained, threshold, evidence, sample, parent=active.id)
