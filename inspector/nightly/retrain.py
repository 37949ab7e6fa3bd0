"""`inspector retrain`: select, train, calibrate, hold against the active bundle, promote or refuse.

All work is done in a staging folder beside the models. A candidate appears among the bundles whole, in one
rename, its report before it; `current` is swapped last. Whatever is killed in between leaves the active
bundle active, and the next run sweeps up.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import structlog
import torch

from inspector.audit.events import add_event
from inspector.audit.log import AuditLog
from inspector.audit.records import Severity
from inspector.errors import (
    BusyError,
    InspectorError,
    LogError,
    NoGpuError,
    NoSpaceError,
    RefusedError,
    TrainingError,
)
from inspector.judges import active_bundle, open_engine
from inspector.model import bundle as bundles
from inspector.model import store
from inspector.model.bundle import WEIGHTS, Bundle
from inspector.model.engine import Engine, resolve
from inspector.model.preprocess import picture
from inspector.models import unfit
from inspector.nightly import collect, golden, priority
from inspector.nightly.candidate import Night, calibrated, options, warm
from inspector.nightly.collect import Selection
from inspector.nightly.second_look import look_again
from inspector.settings import Settings
from training import distributed, gate_report
from training.fit import train
from training.gate import Margins, Outcome, Shown, disagreements, judge
from training.gate_report import FEW, Picture
from training.trial import eight_bit

logger = structlog.get_logger()

ROOM_MIB = 512  # beside log.min_free_mib, for reports
FEWEST = 20  # parts kept apart that are worth comparing on


def retrain(
    settings: Settings,
    recipes: list[str],
    *,
    epochs: int | None = None,
    seed: int | None = None,
    start: str | None = None,
) -> Iterator[str]:
    """Every recipe in turn, each to its end or its reason. Raises the first reason when all are through.

    BusyError when another one runs, TooFewPartsError, NoSpaceError, NoGpuError, RefusedError by the gate, and
    what training, log and bundles raise.
    """
    distributed.refuse("inspector retrain", "start it without torchrun")
    with _alone(settings):
        priority.lower()
        stopped: list[InspectorError] = []
        for recipe in recipes:
            chosen = seed if seed is not None else int(datetime.now(UTC).strftime("%Y%m%d"))
            night = Night(settings, recipe, chosen, epochs, start or settings.retrain.start)
            try:
                yield from _one(night)
            except (InspectorError, OSError, MemoryError, torch.OutOfMemoryError) as cause:
                error = _named(night, cause)
                stopped.append(error)
                refused = isinstance(error, RefusedError)
                severity: Severity = "warning" if refused or error.exit_code != 1 else "error"
                kind = "retrain_refused" if refused else "retrain_failed"
                _tell(settings, kind, str(error), severity, {"recipe": recipe})
                if len(recipes) > 1:
                    yield f"recipe '{recipe}': {error}"
            finally:
                shutil.rmtree(night.staging, ignore_errors=True)
        if stopped:
            raise stopped[0]


def _named(night: Night, cause: Exception) -> InspectorError:
    """What a disk or a memory that is full in mid-run is called."""
    if isinstance(cause, InspectorError):
        return cause
    if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
        full = f"the disk under {night.settings.station.data} became full"
        return NoSpaceError(f"{full} while recipe '{night.recipe}' was trained anew; free space there")
    what = "the memory did not suffice" if not isinstance(cause, OSError) else str(cause)
    return TrainingError(f"recipe '{night.recipe}' could not be trained anew: {what}")


def _one(night: Night) -> Iterator[str]:
    settings, recipe = night.settings, night.recipe
    _sweep(night)
    active = active_bundle(settings, recipe)
    if against := unfit(settings, recipe, active):
        raise TrainingError(f"nothing can be compared with the active bundle: {against}")
    _require_room(night, active)
    device = resolve(settings.engine.device)
    if settings.retrain.require_gpu and device.type != "cuda":
        raise NoGpuError(
            f'retrain.require_gpu is true, and engine.device = "{settings.engine.device}" is the CPU here; '
            "see `inspector doctor`"
        )
    priority.leave_room(device)
    with AuditLog.open(settings.database, readonly=True) as log:
        chosen = collect.select(settings, recipe, log, night.seed)
    assert active.threshold is not None  # noqa: S101 - else it were unfit
    look_again(chosen, open_engine(active, settings.engine), active.threshold.value)
    collect.refuse_too_few(chosen, settings.retrain.min_parts)
    yield f"recipe '{recipe}': {_counts(chosen)}"
    manifest = chosen.manifest(recipe=recipe, seed=night.seed, active=active.id, made=_now())
    trained = train(
        [one.file for one in chosen.learn],
        night.staging,
        options(night, active),
        start=warm(night, active),
        resumable=False,  # the next night begins anew; and a row must not wait for a large file on its disk
    )
    candidate = calibrated(night, active, trained, chosen, manifest)
    outcome, page = _gate(night, active, candidate, chosen, manifest)
    published = _publish(night, candidate, page.parent)
    yield f"report of the gate: {night.models / 'reports' / published / page.name}"
    if not outcome.passed:
        raise RefusedError(
            f"recipe '{recipe}': candidate {published[:12]} is refused, {active.id[:12]} stays active: "
            + "; ".join(outcome.reasons)
        )
    if newest := [one for one in store.history(night.models)[-1:] if one.by == "rollback"]:
        raise RefusedError(
            f"recipe '{recipe}': candidate {published[:12]} is not worse than {active.id[:12]}, but a person "
            f"has gone back to that one ({newest[0].time}), so a person decides: `inspector models activate "
            f"{published[:12]}` takes the candidate, `inspector models activate {active.id[:12]}` keeps what "
            "is; after either the nights promote again"
        )
    if store.current(night.models) != active.id:
        raise RefusedError(
            f"recipe '{recipe}': another bundle was made active meanwhile, so candidate {published[:12]} "
            f"was compared with the wrong one; `inspector models activate {published[:12]}` takes it all the "
            "same"
        )
    store.activate(night.models, published, "retrain")
    summary = outcome.to_json()["summary"]
    message = f"recipe '{recipe}': bundle {published[:12]} is active in place of {active.id[:12]}: {summary}"
    _tell(settings, "retrain_promoted", message, "info", {"recipe": recipe})
    yield message


def _counts(chosen: Selection) -> str:
    left = ", ".join(f"{count} {why}" for why, count in chosen.left_out.items() if count)
    return (
        f"{len(chosen.learn)} parts to learn from, {len(chosen.apart)} kept apart, {len(chosen.defects)} "
        f"known defects; left out: {left or 'none'}"
    )


# --- before ------------------------------------------------------------------------------------------------


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Two would train for nothing, and each against the other's result."""
    path = settings.station.data / "retrain.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise LogError(f"{path} cannot be written: {error.strerror}; expected the daemon's user") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy = BusyError(f"another retraining runs on this station (it holds {path}); let it end")
            _tell(settings, "retrain_failed", str(busy), "warning", {})
            raise busy from None
        yield


def _sweep(night: Night) -> None:
    """What a killed run left: its staging folder, and reports of bundles that never came."""
    shutil.rmtree(night.staging, ignore_errors=True)
    reports = night.models / "reports"
    for folder in reports.iterdir() if reports.is_dir() else ():
        if (folder / "gate.json").exists() and not (night.models / folder.name).is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def _require_room(night: Night, active: Bundle) -> None:
    """A night must not leave the line without its floor."""
    data, floor = night.settings.station.data, night.settings.log.min_free_mib
    needed = floor + ROOM_MIB + 3 * ((active.path / WEIGHTS).stat().st_size >> 20)
    free = shutil.disk_usage(data).free >> 20
    if free < needed:
        raise NoSpaceError(
            f"the disk under {data} has {free} MiB free, {needed} are needed to train anew (of them "
            f"log.min_free_mib = {floor} for the line); free space, or move old frames away"
        )


# --- the gate ----------------------------------------------------------------------------------------------


def _gate(
    night: Night, active: Bundle, candidate: Bundle, chosen: Selection, manifest: bytes
) -> tuple[Outcome, Path]:
    engines = [open_engine(one, night.settings.engine) for one in (active, candidate)]
    for engine in engines:
        engine.warm_up()
        engine.self_test()
    parts = golden.compare(engines[0], engines[1], _exhibits(night, active, chosen))
    before, after = active.threshold, candidate.threshold
    assert before is not None and after is not None  # noqa: S101 - calibrated, as was seen above
    wanted = night.settings.retrain
    outcome = judge(
        parts, before, after, Margins(wanted.auroc_margin, wanted.escape_margin, wanted.reject_margin)
    )
    split = disagreements(parts, before, after)
    drawn = _drawn(night, chosen, split[:FEW], engines)
    folder = night.staging / "report"
    about = {
        "recipe": night.recipe,
        "candidate": candidate.id,
        "active": active.id,
        "learned from": f"{len(chosen.learn)} parts, start: {night.start}",
        "held against": _kinds(parts),
        "made": _now(),
    }
    page = gate_report.write(folder, about, outcome, parts, (before, after), drawn, len(split))
    (folder / "manifest.json").write_bytes(manifest)
    return outcome, page


def _exhibits(
    night: Night, active: Bundle, chosen: Selection, only: Container[str] | None = None
) -> Iterator[golden.Exhibit]:
    """Of what is new to both, if there is enough: what the active bundle learned from looks easy to it."""
    learned = {sha256 for said in ("trained_on", "held_out") for _, sha256 in active.provenance.get(said, ())}
    new = [one for one in chosen.apart if one.sha256 not in learned]
    apart = new if len(new) >= min(FEWEST, len(chosen.apart)) else chosen.apart
    return golden.exhibits(night.settings, night.recipe, apart, chosen.defects, night.seed, only=only)


def _kinds(parts: list[Shown]) -> str:
    normal = sum(not p.defective for p in parts)
    known = sum(p.known for p in parts)
    return f"{normal} normal parts, {known} known defects, {len(parts) - normal - known} synthetic defects"


def _drawn(
    night: Night, chosen: Selection, split: list[Shown], engines: list[Engine]
) -> list[tuple[Shown, Picture]]:
    """Picture and maps of these parts, which are made once more."""
    found = {}
    size = engines[0].bundle.preprocessing
    for one in _exhibits(night, engines[0].bundle, chosen, only={part.name for part in split}):
        image = eight_bit(picture(one.image, size))
        maps = [engine.score(one.image).map for engine in engines]
        side = (image.shape[1], image.shape[0])
        found[one.name] = (image, maps[0], np.asarray(cv2.resize(maps[1], side), np.float32))
    return [(part, found[part.name]) for part in split]


# --- after -------------------------------------------------------------------------------------------------


def _publish(night: Night, candidate: Bundle, report: Path) -> str:
    """Report first, then the bundle, each in one rename. Raises BundleError."""
    place = night.models / "reports" / candidate.id
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        report.rename(place)
        if not (night.models / candidate.id).is_dir():
            candidate.path.rename(night.models / candidate.id)
    except OSError as error:
        raise TrainingError(f"the candidate cannot be moved to {night.models} ({error.strerror})") from error
    return bundles.load(night.models / candidate.id).id


def _tell(settings: Settings, kind: str, message: str, severity: Severity, details: dict[str, str]) -> None:
    """An event. A log that cannot take it costs the event, not the night."""
    try:
        add_event(settings.database, kind, message, severity, details)
    except LogError as error:
        logger.error("event not logged", event_kind=kind, message=message, error=str(error))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
