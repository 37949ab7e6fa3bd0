"""The active bundle of each recipe: whole, calibrated, and fit for this machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from inspector.doctor import FAIL, OK, WARN, Finding, isolated
from inspector.judges import active_bundle, open_engine
from inspector.model.engine import calibrated_for, resolve
from inspector.model.fast import emulated
from inspector.settings import Settings


def models(settings: Settings) -> Iterator[Finding]:
    """Loads the model of every recipe that a camera runs, on the engine that would run it."""
    for name in sorted({camera.recipe for camera in settings.camera}):
        yield from isolated(f"model {name}", partial(_model, settings, name))


def _model(settings: Settings, recipe: str) -> Iterator[Finding]:
    subject = f"model {recipe}"
    bundle = active_bundle(settings, recipe)
    engine = open_engine(bundle, settings.engine)
    engine.self_test()
    runs = f"bundle {bundle.id[:12]} ({bundle.architecture.method}) on {engine.device}, {engine.precision}"
    if slow := emulated(resolve(settings.engine.device), engine.precision):
        yield Finding(WARN, "engine.precision", slow, "take 'float32' and calibrate again")
    threshold, against = bundle.threshold, calibrated_for(bundle, engine)
    if threshold is None or against is not None:
        yield Finding(FAIL, subject, against or "not calibrated", "until then every part is FAULT")
        return
    message = f"{runs}; calibrated there from {threshold.n} parts, threshold {threshold.value:.6g}; "
    message += "self-test passed" if threshold.self_test else "no answer recorded for its self-test"
    if not threshold.proven:
        message += (
            f", proves a false-reject rate of {threshold.proven_rate:.3g}, not {threshold.target_rate:.3g}"
        )
        yield Finding(WARN, subject, message, "calibrate again with more normal parts")
        return
    yield Finding(OK, subject, message)
