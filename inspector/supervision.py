"""What the decision loop looks after once a second, between two parts: storage, models, systemd.

Everything here runs in the decision loop itself, so that a loop that hangs feeds no watchdog.
"""

from __future__ import annotations

import time

import sdnotify
import structlog

from inspector.audit.aside import Note, write_note
from inspector.audit.frames import FrameStore
from inspector.channel import Channel
from inspector.errors import LogError, ModelError
from inspector.health import Health
from inspector.journal import Journal
from inspector.rows import Rows
from inspector.settings import Settings
from inspector.status import describe
from inspector.swap import Swapper

logger = structlog.get_logger()

EVERY_S = 1.0
MODEL_S = 300  # as long as the unit allows the whole start, for each of several models


def loading(recipe: str) -> None:
    """Tell systemd what the start waits for, and that this may take its time as well: sd_notify(3)."""
    told = f"EXTEND_TIMEOUT_USEC={MODEL_S * 1_000_000}\nSTATUS=loading the model of recipe '{recipe}'"
    sdnotify.SystemdNotifier().notify(told)


class Supervision:
    """Keeps the station's health, and tells systemd of it."""

    def __init__(
        self,
        settings: Settings,
        channels: list[Channel],
        frames: FrameStore,
        rows: Rows,
        health: Health,
        journal: Journal,
        swapper: Swapper,
    ) -> None:
        self._settings = settings
        self._channels = channels
        self._frames = frames
        self._rows = rows
        self._health = health
        self._journal = journal
        self._swapper = swapper
        self._systemd = sdnotify.SystemdNotifier()
        self._told = ""
        self._due = 0.0

    def started(self) -> None:
        """READY: every camera is there, every model is warm and has given its known answer."""
        for channel in self._channels:
            if channel.judge.uncalibrated is not None:
                message = f"every part will be FAULT: {channel.judge.uncalibrated}"
                self._journal.note("uncalibrated", "error", message, channel.name)
        self._journal.note("started", "info", f"inspector runs with {len(self._channels)} cameras")
        self._systemd.notify("READY=1")
        self._tell()

    def stopping(self) -> None:
        """The daemon ends."""
        self._systemd.notify("STOPPING=1\nSTATUS=stopping")

    def look(self, *, now: bool = False) -> None:
        """Look after everything if it is time to.

        Raises LogError and ModelError for what only a new start of the daemon can mend.
        """
        if not now and time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY_S
        self._check_disk()
        self._rows.settle()
        self._journal.settle()
        self._swapper.look()
        for channel in self._channels:
            if channel.model_problem:
                self._try_model(channel)
        self._systemd.notify("WATCHDOG=1")
        self._tell()
        if self._health.log_damaged:
            self._leave_a_note()
            raise LogError(f"{self._health.log_problem}; it is set aside when the inspector starts again")

    def _check_disk(self) -> None:
        try:
            self._health.free_mib = self._frames.free_bytes() >> 20
            self._frames.require_free(self._settings.log.min_free_mib << 20)
        except LogError as error:
            if not self._health.low_disk:
                self._journal.note("disk", "error", f"every part is FAULT: {error}")
            self._health.low_disk = str(error)
        else:
            if self._health.low_disk:
                self._health.low_disk = ""
                self._journal.note("disk", "info", f"{self._health.free_mib} MiB are free again")

    def _leave_a_note(self) -> None:
        """A large log is not checked at start: the next daemon must be told."""
        try:
            write_note(self._settings.database, Note(self._health.log_problem))
        except OSError as error:
            logger.error("the damage is not noted", error=error.strerror)

    def _try_model(self, channel: Channel) -> None:
        """A line that waits for READY would never send the part that shows that the model works again.

        A model that does not come back may need what only a new process gets, such as its GPU.
        """
        try:
            channel.judge.scorer.self_test()
        except ModelError as error:
            channel.model_failed(str(error))
            if channel.model_down_s >= self._settings.station.startup_timeout_s:
                raise ModelError(f"recipe '{channel.settings.recipe}': {error}") from error
        else:
            channel.model_works()
            message = f"the model of recipe '{channel.settings.recipe}' passes its self-test again"
            self._journal.note("model", "info", message, channel.name)

    def _tell(self) -> None:
        """STATUS, for `systemctl status`."""
        text = describe(self._channels, self._health)
        if text != self._told:
            self._told = text
            self._systemd.notify(f"STATUS={text}")
