"""The models of a station: the active bundle of each recipe on its engine, and what speaks against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from inspector.audit.log import AuditLog
from inspector.audit.records import BundleRecord
from inspector.channel import Judge, Picture, Scored
from inspector.errors import BundleError, ModelError
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.records import to_json
from inspector.settings import EngineSettings, Recipe, Settings

if TYPE_CHECKING:
    from inspector.model.engine import Engine


def active_bundle(settings: Settings, recipe: str) -> Bundle:
    """The recipe's active bundle, verified. Raises BundleError."""
    bundle = bundles.active(settings.models / recipe)
    refuse_other_roi(bundle, settings.recipe[recipe], recipe)
    return bundle


def refuse_other_roi(bundle: Bundle, recipe: Recipe, name: str) -> None:
    """A model that has learned another part of the frame would judge what it has never seen."""
    if bundle.preprocessing.roi != recipe.region:
        raise BundleError(
            f"bundle {bundle.id[:12]} was trained on roi {bundle.preprocessing.roi or 'none'}, but "
            f"recipe.{name}.roi is {recipe.region or 'none'}; set it back, or train anew"
        )


def open_engine(bundle: Bundle, settings: EngineSettings, together: int = 1) -> Engine:
    """The bundle on the device that [engine] names, for so many cameras. Raises ModelError."""
    from inspector.model.engine import Engine, resolve  # here: `inspector check` does without its libraries

    if resolve(settings.device).type == "cpu":
        together = 1  # there a batch costs nearly what its parts cost: docs/performance.md
    return Engine(bundle, settings.device, settings.precision, settings.threads, together, settings.runtime)


class Broken:
    """Stands in for a model that cannot be had: says so of every part."""

    together = 1

    def __init__(self, error: ModelError) -> None:
        self._error = error

    def warm_up(self) -> None:
        """Raise ModelError."""
        self.self_test()

    def keep_warm(self) -> None:
        """There is nothing to keep."""

    def self_test(self) -> None:
        """Raise ModelError."""
        raise type(self._error)(str(self._error))

    def score_first(self, images: Sequence[Picture], left_ms: float) -> Sequence[Scored]:
        """Raise ModelError."""
        raise type(self._error)(str(self._error))


def load(settings: Settings, log: AuditLog, cameras: int | None = None) -> dict[str, Judge]:
    """Judges by recipe name, warm, each having passed its self-test, their bundles registered in the log.

    cameras: so many share each model, whatever the station has. Raises BundleError and ModelError. A bundle
    that is not calibrated for this device and precision is loaded all the same: its judge carries the reason,
    and every part will be FAULT.
    """
    judges = load_for_line(settings, log, cameras)
    for judge in judges.values():
        if judge.problem:
            judge.scorer.self_test()
    return judges


def load_for_line(
    settings: Settings,
    log: AuditLog,
    cameras: int | None = None,
    loading: Callable[[str], None] = lambda recipe: None,
) -> dict[str, Judge]:
    """The same, but a model that fails gets a judge that says why: the line gets FAULT, not silence.

    loading: is told each recipe whose model comes next.
    """
    judges = {}
    for name in sorted({camera.recipe for camera in settings.camera}):
        loading(name)
        try:
            judges[name] = judge_of(settings, log, name, cameras)
        except ModelError as error:
            judges[name] = Judge(Broken(error), None, None, None, problem=str(error))
    return judges


def judge_of(settings: Settings, log: AuditLog, recipe: str, cameras: int | None = None) -> Judge:
    """The recipe's active bundle on its engine, warm and tested: its judge says what speaks against it.

    Raises BundleError, ModelError and LogError.
    """
    from inspector.model.engine import calibrated_for

    bundle = active_bundle(settings, recipe)
    share = sum(camera.recipe == recipe for camera in settings.camera) if cameras is None else cameras
    engine = open_engine(bundle, settings.engine, share)
    log.register_bundle(
        BundleRecord(
            id=bundle.id,
            recipe=recipe,
            architecture=to_json(bundle.architecture),
            preprocessing=to_json(bundle.preprocessing),
            scoring=to_json(bundle.scoring),
            threshold=None if bundle.threshold is None else to_json(bundle.threshold),
        )
    )
    problem = ""
    try:
        engine.warm_up()
        engine.self_test()
    except ModelError as error:
        problem = str(error)
    return Judge(
        engine,
        bundle.id,
        None if bundle.threshold is None else bundle.threshold.value,
        calibrated_for(bundle, engine),
        where=f"{engine.device}, {engine.precision}",
        promise="" if bundle.threshold is None else bundle.threshold.promise,
        problem=problem,
    )
