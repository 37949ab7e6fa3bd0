"""What the whole station shares: whether a decision can be kept, and whether the line is being served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Health:
    """Problems are said in words, empty while there are none. Written by one thread each, read by all."""

    running: bool = False  # every camera is there and every model has passed its self-test
    stopping: bool = False
    log_problem: str = ""  # why the last row could not be committed
    log_damaged: bool = False  # no waiting will help: the file must be set aside
    low_disk: str = ""  # what is too full
    frames_problem: str = ""  # why a frame cannot be stored
    free_mib: int = 0  # on the disk of the frames

    @property
    def storage_problem(self) -> str:
        """Why no decision can be kept."""
        return self.log_problem or self.low_disk or self.frames_problem

    @property
    def storage_ok(self) -> bool:
        """Whether a decision can be kept."""
        return not self.storage_problem
