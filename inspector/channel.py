"""One camera of the station with everything that belongs to it: recipe, model, requests, health."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inspector.camera.process import CameraProcess
from inspector.lane import Lane
from inspector.plc.registers import InspectorBlock, Status
from inspector.settings import CameraSettings, Recipe

Picture = NDArray[np.uint8] | NDArray[np.uint16]


class Scored(Protocol):
    """What a scorer says of one frame."""

    @property
    def score(self) -> float:
        """The image score; higher is less normal."""
        ...

    @property
    def map(self) -> NDArray[np.float32]:
        """(S, S) score map."""
        ...

    @property
    def stages(self) -> dict[str, float]:
        """Milliseconds by stage."""
        ...


class Scorer(Protocol):
    """What scores frames: the engine, or the stub that measures the station without a model."""

    @property
    def together(self) -> int:
        """How many frames it may score at once."""
        ...

    def warm_up(self) -> None:
        """Make the first part as fast as any other."""
        ...

    def keep_warm(self) -> None:
        """Called now and then while no part comes: stay as fast. Raises ModelError."""
        ...

    def self_test(self) -> None:
        """Raise ModelError unless the answer to a known picture is the known one."""
        ...

    def score_first(self, images: Sequence[Picture], left_ms: float) -> Sequence[Scored]:
        """Score the first of these frames, (H, W) or (H, W, 3), or the first few at once.

        left_ms: to the first deadline of any part that waits. Raises ModelError, which is about the first.
        """
        ...


@dataclass(frozen=True, slots=True)
class Judge:
    """The model of a recipe as the daemon uses it."""

    scorer: Scorer
    bundle: str | None  # id; None where no bundle could be loaded
    threshold: float | None
    uncalibrated: str | None  # why no verdict may come of it, None when all is well
    where: str = ""  # device and precision
    promise: str = ""  # of the threshold, and what it rests on
    problem: str = ""  # why it does not work, as found at start

    @property
    def scale(self) -> float:
        """Map value at the top of the heatmap's colour scale: the threshold is its middle."""
        return 2 * self.threshold if self.threshold and self.threshold > 0 else 1.0


@dataclass(slots=True)
class Channel:
    """One camera's place in the daemon."""

    settings: CameraSettings
    recipe: Recipe
    judge: Judge
    camera: CameraProcess
    lane: Lane
    block: InspectorBlock  # the newest answer; the heartbeat beside it counts on its own
    heartbeat: int = 0
    confirmed: tuple[int, int] | None = None  # sequence and part id that the PLC is known to hold …
    confirmed_on: int | None = None  # … since this connection, counted by Link.reconnects
    taken_up: int = -1  # the connection on which verdicts may go out, counted in the same way; -1: none yet
    forgotten_ns: int = 0  # what was asked before this (monotonic) the PLC has forgotten
    lock: threading.Lock = field(default_factory=threading.Lock)  # one answer at a time
    camera_ok: bool = False
    camera_problem: str = "the camera process has not opened it"
    model_problem: str = ""  # why the model does not work, empty while it does
    model_failed_at: float = 0.0  # since when, monotonic s
    model_refused: str = ""  # why the active bundle is not the one that judges, empty while it is
    coils_refused: str = ""  # how the PLC refuses the coils, empty while it takes them; under the lock
    acknowledged: int | None = None  # sequence of the last verdict that the PLC says it has used
    overrun: bool = False  # the last trigger came too soon
    in_work: int | None = None  # token of the request whose frame is being scored
    exhausted: bool = False  # a folder that is played once has no more frames

    def __post_init__(self) -> None:
        if self.judge.problem:
            self.model_failed(self.judge.problem)

    @property
    def name(self) -> str:
        """The camera's name in station.toml."""
        return self.settings.name

    @property
    def model_ok(self) -> bool:
        """Whether the model has worked at its last part or self-test."""
        return not self.model_problem

    @property
    def model_down_s(self) -> float:
        """How long the model has not worked."""
        return time.monotonic() - self.model_failed_at if self.model_problem else 0.0

    def model_failed(self, problem: str) -> None:
        """No part passes, and READY is off, until the model has passed its self-test."""
        if not self.model_problem:
            self.model_failed_at = time.monotonic()
        self.model_problem = problem

    def model_works(self) -> None:
        """It has passed its self-test."""
        self.model_problem = ""

    def status(self, *, log_ok: bool, running: bool) -> Status:
        """The status register as it is now."""
        sound = self.camera_ok and self.model_ok and log_ok and not self.coils_refused
        calibrated = self.judge.uncalibrated is None
        bits = {
            Status.READY: running and sound and calibrated,
            Status.BUSY: self.lane.busy,
            Status.FAULT: not (sound and calibrated),
            Status.CAMERA_OK: self.camera_ok,
            Status.MODEL_OK: self.model_ok,
            Status.LOG_OK: log_ok,
            Status.UNCALIBRATED: not calibrated,
            Status.OVERRUN: self.overrun,
        }
        status = Status(0)
        for bit, on in bits.items():
            status |= bit if on else Status(0)
        return status
