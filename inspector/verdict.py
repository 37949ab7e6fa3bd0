"""PASS, REJECT or FAULT, and why. Pure: no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Verdict(IntEnum):
    """What the PLC reads. 0 is not a verdict, so that an empty register passes nothing."""

    PASS = 1
    REJECT = 2
    FAULT = 3


class Reason(StrEnum):
    """Why a part is FAULT: there is no finished inspection, so nothing may pass."""

    CAMERA_DOWN = "camera_down"  # the camera process is silent, dead or not open yet
    FRAME_LOST = "frame_lost"  # announced or skipped by the camera, never a complete frame
    NO_FRAME = "no_frame"  # triggered, nothing came within the deadline
    OVERRUN = "overrun"  # a trigger came while another part was in work
    LATE = "late"  # the verdict was not ready at the deadline
    MODEL_ERROR = "model_error"  # the model raised, ran out of memory or is not loaded
    NOT_FINITE = "score_not_finite"  # the score is NaN or infinite
    UNCALIBRATED = "uncalibrated"  # no threshold for this device and precision
    STORAGE = "storage"  # the log cannot take the row, or the disk is below its floor
    COILS = "coils_refused"  # the PLC refuses the coils by which it would hear of a pass
    RESTARTED = "restarted"  # in flight while the inspector was down, or the PLC
    STOPPING = "stopping"  # the daemon is shutting down


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its reason (None for PASS and REJECT, which the score explains)."""

    verdict: Verdict
    reason: Reason | None = None

    @classmethod
    def fault(cls, reason: Reason) -> Decision:
        """A part that was not inspected to the end."""
        return cls(Verdict.FAULT, reason)


def judge(score: float, threshold: float | None) -> Decision:
    """Compare an image score with the calibrated threshold; above it is REJECT.

    A missing threshold or a score that is not finite is a FAULT, never a PASS.
    """
    if threshold is None or not math.isfinite(threshold):
        return Decision.fault(Reason.UNCALIBRATED)
    if not math.isfinite(score):
        return Decision.fault(Reason.NOT_FINITE)
    return Decision(Verdict.REJECT if score > threshold else Verdict.PASS)


def combine(decisions: list[Decision]) -> Decision:
    """One decision for a part seen by several cameras: PASS only if all pass, FAULT before REJECT."""
    if not decisions:
        raise ValueError("no decision to combine")
    return max(decisions, key=lambda decision: decision.verdict)
