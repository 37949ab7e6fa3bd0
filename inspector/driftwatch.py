"""A thread that follows parts through the log and tells when they have moved; no part waits for it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from inspector.audit.log import AuditLog
from inspector.audit.records import Severity
from inspector.channel import Channel
from inspector.drift import FEWEST, QUANTITIES, WINDOW, Drift, Floats
from inspector.errors import InspectorError
from inspector.journal import Journal
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.settings import Settings
from inspector.verdict import Verdict

logger = structlog.get_logger()

EVERY_S = 5.0
AT_ONCE = 200  # rows that are read before the line may have its turn
KIND = "drift"


@dataclass(slots=True)
class Followed:
    """One camera under one bundle."""

    bundle: str
    drift: Drift | None  # None where there is nothing to compare with
    why_not: str = ""
    newest: int = 0  # id of the last inspection that was looked at


class DriftWatch:
    """Runs beside the line until closed; what it finds is read by status."""

    def __init__(self, settings: Settings, channels: list[Channel], journal: Journal) -> None:
        self._settings = settings
        self._channels = channels
        self._journal = journal
        self._followed: dict[str, Followed] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="drift", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """End after the rows in hand."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def state(self, camera: str) -> dict[str, Any]:
        """JSON object: state is "none", "moved", "collecting" or "not available"."""
        followed = self._followed.get(camera)
        if followed is None or followed.drift is None:
            why = followed.why_not if followed else "nothing was compared yet"
            return {"state": "not available", "moved": [], "message": why, "parts_today": 0, "quantities": {}}
        drift = followed.drift
        looked = any(watch.moved is not None for watch in drift.watches.values())
        moved = list(drift.moved)
        waiting = f"fewer than {WINDOW} parts to compare yet"
        return {
            "state": "moved" if moved else "none" if looked else "collecting",
            "moved": moved,
            "message": drift.message() if looked or moved else waiting,
            "parts_today": drift.parts_today,
            "quantities": {
                name: {
                    "moved": name in moved,
                    "distance": watch.newest.distance,
                    "median": watch.newest.median,
                    "at_calibration": watch.reference.median,
                }
                for name, watch in drift.watches.items()
            },
        }

    def _work(self) -> None:
        told = ""
        while not self._stop.wait(EVERY_S):
            try:
                with AuditLog.open(self._settings.database, readonly=True) as log:
                    for channel in self._channels:
                        self._look(channel, log)
                told = ""
            except InspectorError as error:  # the line goes on without; what is wrong is told elsewhere too
                if str(error) != told:
                    told = str(error)
                    logger.warning("drift is not looked at", error=told)

    def _look(self, channel: Channel, log: AuditLog) -> None:
        bundle = channel.judge.bundle
        if bundle is None:
            return
        followed = self._followed.get(channel.name)
        if followed is None or followed.bundle != bundle:
            followed = self._followed[channel.name] = self._begin(channel, bundle, log)
        if followed.drift is None:
            return
        while rows := log.judged(channel.name, bundle, after=followed.newest, limit=AT_ONCE):
            for row in rows:
                day = row.time.astimezone().date()
                values = {name: getattr(row, name) for name in QUANTITIES}
                followed.drift.add(day, values, passed=row.verdict == Verdict.PASS)
            followed.newest = rows[-1].id
            if len(rows) < AT_ONCE or self._stop.wait(0.01):
                break
        if followed.drift.change():
            self._tell(channel, followed)

    def _tell(self, channel: Channel, followed: Followed) -> None:
        assert followed.drift is not None  # noqa: S101 - _look() has asked
        moved = followed.drift.moved
        details = {"bundle": followed.bundle, "moved": list(moved)}
        severity: Severity = "warning" if moved else "info"
        self._journal.note(KIND, severity, followed.drift.message(), channel.name, details=details)

    def _begin(self, channel: Channel, bundle: str, log: AuditLog) -> Followed:
        """From today's first part on; an earlier daemon may have told already what has moved."""
        try:
            found = references(bundles.describe(self._settings.models / channel.settings.recipe / bundle))
        except InspectorError as error:
            return Followed(bundle, None, f"the calibration parts' scores cannot be read: {error}")
        fewest = min((len(values) for values in found.values()), default=0)
        if fewest < FEWEST:
            kept = f"{fewest} calibration parts are kept" if found else "no calibration parts are kept"
            why = f"{kept} with bundle {bundle[:12]}, expected at least {FEWEST}; run `inspector calibrate`"
            return Followed(bundle, None, why)
        last = log.events(kind=KIND, camera=channel.name, limit=1)
        details = (last[0].details or {}) if last else {}
        told = details.get("moved", []) if details.get("bundle") == bundle else []
        midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        return Followed(bundle, Drift(found, told), newest=log.last_before(midnight))


def references(bundle: Bundle) -> dict[str, Floats]:
    """Of all calibration parts, by quantity; scores of those that would pass, as the parts did that they
    stand for. Empty for a bundle calibrated before they were kept.
    """
    sample = bundles.sample(bundle)
    if sample is None or bundle.threshold is None or len(sample.brightness) < len(sample.scores):
        return {}
    found = {
        "score": sample.scores[sample.scores <= bundle.threshold.value],
        "brightness": sample.brightness,
        "sharpness": sample.sharpness,
    }
    return found | ({"highlight": sample.highlight} if len(sample.highlight) else {})
