"""`inspector calibrate`: the threshold of the active model from normal parts, with what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import SettingsError
from inspector.settings import Settings

if TYPE_CHECKING:
    from inspector.camera import Image
    from inspector.model.bundle import Bundle
    from inspector.model.engine import Engine
    from inspector.model.records import Threshold
    from inspector.model.sample import Sample
    from inspector.normals import Source

LOGGED = 2000  # parts of a log that are kept for the nights: it may hold a hundred times as many


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for. One of images, camera and log says where the parts come from."""

    images: Path | None = None
    camera: str | None = None
    log: bool = False
    frames: int = 300  # of the camera
    since: datetime | None = None  # of the log
    until: datetime | None = None
    defects: Path | None = None
    rate: float | None = None  # None: the recipe's
    confidence: float | None = None
    tail: bool = False
    dry_run: bool = False


def calibrate_recipe(settings: Settings, recipe: str, asked: Asked) -> Iterator[str]:
    """Compute the threshold; store it in a new bundle and make that the active one."""
    chosen = settings.recipe[recipe]
    rate = _fraction("--rate", asked.rate, chosen.false_reject_rate)
    sure = _fraction("--confidence", asked.confidence, chosen.confidence)
    _refuse_contradictions(settings, recipe, asked)

    # only now, for these take seconds and a slip is told at once
    from inspector.judges import active_bundle, open_engine
    from inspector.model import bundle as bundles
    from inspector.model import store
    from inspector.nightly.commissioning import Calibration
    from inspector.normals import from_folder, labelled_defects
    from training.calibrate import parts_needed, score_all, threshold_of

    bundle = active_bundle(settings, recipe)
    source = _source(settings, recipe, asked, bundle)
    yield from source.notes
    defects = [from_folder(asked.defects)] if asked.defects is not None else []
    defects += [found] if (found := labelled_defects(settings, recipe)) is not None else []
    engine = open_engine(bundle, settings.engine)
    engine.warm_up()
    kept = None if asked.dry_run else Calibration(settings, recipe)
    most = max(LOGGED, parts_needed(rate, sure)) if asked.log else None
    sample = sampled(engine, source if kept is None else kept.copied(source, most))
    threshold = threshold_of(
        engine, sample.scores.tolist(), rate=rate, confidence=sure, source=source.name, fit_tail=asked.tail
    )
    known = [
        score
        for one in defects
        for score in score_all(engine, one.pictures, total=one.total, what=f"scoring {one.name}")
    ]
    yield from explain(threshold, asked_tail=asked.tail)
    if known:
        missed = sum(score <= threshold.value for score in known)
        yield f"of {len(known)} known defects {missed} score below the threshold and would pass"
    if asked.dry_run:
        yield from _draw(bundle.path.parent / "reports" / bundle.id / "dry-run.png", threshold, sample, known)
        yield "nothing else was changed (--dry-run)"
        return
    child = bundles.with_threshold(bundle, threshold, {"known_defects": sorted(known)}, sample)
    if kept is not None:
        kept.take_up()
        yield f"the parts are kept in {kept.folder}: each retraining sets its threshold on them as well"
    yield from _draw(picture_of(child), threshold, sample, known)
    store.activate(settings.models / recipe, child.id, "calibrate")
    yield f"bundle {child.id[:12]} is active; a running daemon takes it between two parts"


def sampled(engine: Engine, source: Source) -> Sample:
    """The scores of the source's parts on this engine, and what light and lens made of them.

    Raises TrainingError for a score that is not finite, and what reading and scoring raise.
    """
    import numpy as np

    from inspector.appearance import measure
    from inspector.audit.records import Measures
    from inspector.model.sample import Sample
    from training.calibrate import score_all

    measures: list[Measures] = []

    def measured(pictures: Iterable[tuple[str, Image]]) -> Iterator[tuple[str, Image]]:
        for name, image in pictures:
            yield name, image
            measures.append(measure(image, engine.bundle.preprocessing.roi))  # the engine took it: it fits

    scores = score_all(engine, measured(source.pictures), total=source.total)
    return Sample(
        np.array(scores),
        np.array([one.brightness for one in measures]),
        np.array([one.sharpness for one in measures]),
        np.array([one.highlight for one in measures]),
    )


def picture_of(bundle: Bundle) -> Path:
    """Where the picture of this bundle's calibration is, beside the report of its training."""
    return bundle.path.parent / "reports" / bundle.id / "calibration.png"


def explain(threshold: Threshold, *, asked_tail: bool) -> Iterator[str]:
    """What the threshold is, what it rests on, and what is missing."""
    from training.calibrate import parts_needed
    from training.tail import BEYOND, fewest_parts

    rate, sure = f"{threshold.target_rate:.3g}", f"{threshold.confidence:.0%}"
    needed = parts_needed(threshold.target_rate, threshold.confidence)
    short = f"{needed - threshold.n} more are needed ({needed} in all)"
    limits = ", limits {:.6g} and {:.6g}".format(*threshold.interval) if threshold.interval else ""
    if threshold.extrapolated:
        yield f"threshold {threshold.value:.6g}, EXTRAPOLATED from {threshold.n} normal parts{limits}"
        yield (
            f"at most {rate} of normal parts will be rejected, with {sure} confidence, if the fitted tail is "
            f"true; whatever it is, the parts prove {threshold.proven_rate:.3g}"
        )
        yield f"to prove {rate} without a fitted tail, {short}"
        return
    parts = f"score {threshold.rank} of {threshold.n} normal parts in order"
    yield f"threshold {threshold.value:.6g}: {parts}{limits}"
    if threshold.proven:
        yield f"at most {rate} of normal parts will be rejected, with {sure} confidence"
        if asked_tail:
            yield "--tail was not needed: the parts are enough for a proof"
        return
    yield (
        f"too few parts to prove {rate} at {sure}: {short}; "
        f"the highest score is taken, and the {threshold.n} parts prove {threshold.proven_rate:.3g}"
    )
    if threshold.n >= fewest_parts() and threshold.target_rate < BEYOND:
        yield "--tail extrapolates a fitted tail instead"
    elif needed > fewest_parts():
        yield f"from {fewest_parts()} parts on --tail extrapolates a fitted tail instead"


def _refuse_contradictions(settings: Settings, recipe: str, asked: Asked) -> None:
    from inspector.normals import camera_of

    if (asked.images is not None) + (asked.camera is not None) + asked.log != 1:
        raise SettingsError(
            "give exactly one of --images, --camera and --log: the normal parts come from there"
        )
    if not asked.log and (asked.since is not None or asked.until is not None):
        raise SettingsError("--since and --until choose from the log: give them with --log")
    if asked.camera is not None:
        camera_of(settings, asked.camera, recipe)


def _source(settings: Settings, recipe: str, asked: Asked, bundle: Bundle) -> Source:
    from inspector.normals import camera_of, from_camera, from_folder, from_log, seen

    if asked.log:
        return from_log(settings, recipe, _utc(asked.since), _utc(asked.until), seen(bundle))
    if asked.camera is not None:
        camera = camera_of(settings, asked.camera, recipe)
        return from_camera(camera, asked.frames, settings.station.startup_timeout_s)
    assert asked.images is not None  # noqa: S101 - one of the three is given
    return from_folder(asked.images, seen(bundle))


def _draw(path: Path, threshold: Threshold, sample: Sample, known: list[float]) -> Iterator[str]:
    """A picture that cannot be drawn costs nobody a threshold."""
    from training import charts

    if not charts.available():
        yield "no picture: matplotlib is not installed (pip install matplotlib)"
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(charts.calibration(threshold, sample.scores, known))
    except OSError as error:
        yield f"no picture: {path} cannot be written ({error.strerror})"
    else:
        yield f"picture: {path}"


def _fraction(option: str, given: float | None, default: float) -> float:
    if given is not None and not 0 < given < 1:
        raise SettingsError(f"{option} {given}: expected a number between 0 and 1, such as 0.005")
    return default if given is None else given


def _utc(time: datetime | None) -> datetime | None:
    """A time on the command line is local time."""
    return None if time is None else time.astimezone(UTC)
