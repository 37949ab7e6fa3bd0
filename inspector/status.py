"""What can be said of a running station at this moment, as one JSON object.

Nothing here waits for the decision loop, nor it for this: values are read where they stand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from inspector import __version__
from inspector.audit import aside
from inspector.channel import Channel
from inspector.delivery import Delivery
from inspector.driftwatch import DriftWatch
from inspector.evidence import EvidenceWriter
from inspector.health import Health
from inspector.line import LineLoop
from inspector.plc.link import Link
from inspector.rows import Rows
from inspector.settings import Settings
from inspector.tally import Counts, Tally


def state(channels: Iterable[Channel], health: Health) -> str:
    """starting, inspecting, fault or stopping; fault as soon as one camera's parts cannot pass."""
    if health.stopping:
        return "stopping"
    if problems(channels, health):
        return "fault"
    return "inspecting" if health.running else "starting"


def problems(channels: Iterable[Channel], health: Health) -> list[str]:
    """Everything for which parts are FAULT."""
    found = [health.storage_problem] if health.storage_problem else []
    for channel in channels:
        where = f"camera '{channel.name}': "
        if not channel.camera_ok and not channel.exhausted:
            found.append(where + channel.camera_problem)
        if channel.model_problem:
            found.append(where + channel.model_problem)
        elif channel.judge.uncalibrated is not None:
            found.append(where + channel.judge.uncalibrated)
        if channel.coils_refused:
            found.append(where + channel.coils_refused)
    return found


def warnings(channels: Iterable[Channel]) -> list[str]:
    """What somebody should look at though parts are inspected."""
    return list(dict.fromkeys(channel.model_refused for channel in channels if channel.model_refused))


def describe(channels: list[Channel], health: Health) -> str:
    """The same in one line, for `systemctl status`."""
    found = problems(channels, health)
    return f"FAULT: {'; '.join(found)}".replace("\n", " ") if found else state(channels, health)


class Status:
    """Puts a snapshot together from the daemon's parts."""

    def __init__(
        self,
        settings: Settings,
        channels: list[Channel],
        health: Health,
        tally: Tally,
        rows: Rows,
        delivery: Delivery,
        evidence: EvidenceWriter,
        link: Link | None,
        line: LineLoop,
        drift: DriftWatch,
    ) -> None:
        self._settings = settings
        self._channels = channels
        self._health = health
        self._tally = tally
        self._rows = rows
        self._delivery = delivery
        self._evidence = evidence
        self._link = link
        self._line = line
        self._drift = drift
        self._started = time.monotonic()
        self._since = datetime.now(UTC)

    def snapshot(self) -> dict[str, Any]:
        """JSON object; times are ISO 8601 in UTC, durations in the unit that ends their name."""
        health, settings = self._health, self._settings
        return {
            "station": settings.station.name,
            "state": state(self._channels, health),
            "problems": problems(self._channels, health),
            "warnings": warnings(self._channels),
            "version": __version__,
            "pid": os.getpid(),
            "since": self._since.isoformat(timespec="seconds"),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "cameras": [self._camera(channel) for channel in self._channels],
            "plc": self._plc(),
            "log": {
                "ok": not health.log_problem,
                "problem": health.log_problem,
                "file": str(settings.database),
                "synchronous": settings.log.synchronous,
                "rows_owed": self._rows.owed,
                "set_aside": aside.kept(settings.station.data),
            },
            "disk": {
                "ok": not health.low_disk,
                "free_mib": health.free_mib,
                "floor_mib": settings.log.min_free_mib,
            },
            "frames": {
                "ok": not health.frames_problem,
                "problem": health.frames_problem,
                "waiting": self._evidence.waiting,
                "given_up": self._evidence.given_up,
            },
        }

    def counts(self, camera: str) -> Counts:
        """What has been decided about a camera's parts."""
        return self._tally.of(camera)

    def _camera(self, channel: Channel) -> dict[str, Any]:
        counts, camera, judge = self._tally.of(channel.name), channel.camera, channel.judge
        info = camera.info
        return {
            "name": channel.name,
            "ready": self._health.running and not problems([channel], self._health),
            "state": camera.state,
            "problem": "" if channel.camera_ok or channel.exhausted else channel.camera_problem,
            "device": "" if info is None else f"{info.vendor} {info.model} {info.serial}".strip(),
            "trigger": channel.settings.trigger,
            "frames": camera.counts.frames,
            "lost": dict(camera.counts.lost),
            "respawns": camera.counts.respawns,
            "busy": channel.lane.busy,
            "overruns": channel.lane.overruns,
            "verdicts": {name: counts.verdicts[name] for name in ("PASS", "REJECT", "FAULT")},
            "faults": dict(counts.faults),
            "late_in_a_row": counts.late_in_a_row,
            "latency_ms": _percentiles(list(counts.latencies)),
            "last": counts.last,
            "undelivered": self._delivery.waits(channel),
            "acknowledged": channel.acknowledged,
            "plc_heartbeat_still": self._line.still(channel.name),
            "heartbeat_gap_ms": self._line.longest_gap_ms(channel.name),
            "drift": self._drift.state(channel.name),
            "model": {
                "recipe": channel.settings.recipe,
                "bundle": judge.bundle,
                "threshold": judge.threshold,
                "promise": judge.promise,
                "where": judge.where,
                "ok": channel.model_ok and judge.uncalibrated is None,
                "problem": channel.model_problem or judge.uncalibrated or "",
                "refused": channel.model_refused,
            },
        }

    def _plc(self) -> dict[str, Any]:
        link = self._link
        if link is None:
            return {"enabled": False}
        return {
            "enabled": True,
            "address": link.address,
            "connected": link.connected,
            "round_trip_ms": link.round_trip_ms,
            "errors": link.errors,
            "reconnects": link.reconnects,
            "last_error": link.last_error,
        }


def _percentiles(values: list[float]) -> dict[str, float | int | None]:
    if not values:
        return {"p50": None, "p99": None, "max": None, "of": 0}
    p50, p99, top = (round(float(value), 3) for value in np.percentile(values, (50, 99, 100)))
    return {"p50": p50, "p99": p99, "max": top, "of": len(values)}
