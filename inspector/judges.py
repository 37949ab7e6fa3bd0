"""The models of a station: the active bundle of each recipe on its engine, and what speaks against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.audit.log import AuditLog
from inspector.audit.records import BundleRecord
from inspector.channel import Judge
from inspector.errors import BundleError
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


def open_engine(bundle: Bundle, settings: EngineSettings) -> Engine:
    """The bundle on the device that [engine] names. Raises ModelError."""
    from inspector.model.engine import Engine  # here, for `inspector check` does without its libraries

    return Engine(bundle, settings.device, settings.precision, settings.threads)


def load(settings: Settings, log: AuditLog) -> dict[str, Judge]:
    """Judges by recipe name, warm, their bundles registered in the log.

    Raises BundleError and ModelError. A bundle that is not calibrated for this device and precision
    is loaded all the same: its judge carries the reason, and every part will be FAULT.
    """
    from inspector.model.engine import calibrated_for

    judges = {}
    for name in sorted({camera.recipe for camera in settings.camera}):
        bundle = active_bundle(settings, name)
        engine = open_engine(bundle, settings.engine)
        engine.warm_up()
        log.register_bundle(
            BundleRecord(
                id=bundle.id,
                recipe=name,
                architecture=to_json(bundle.architecture),
                preprocessing=to_json(bundle.preprocessing),
                scoring=to_json(bundle.scoring),
                threshold=None if bundle.threshold is None else to_json(bundle.threshold),
            )
        )
        threshold = None if bundle.threshold is None else bundle.threshold.value
        judges[name] = Judge(engine, bundle.id, threshold, calibrated_for(bundle, engine))
    return judges
