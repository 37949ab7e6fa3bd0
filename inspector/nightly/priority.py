"""Retraining takes what the line leaves over.

SCHED_IDLE, because `nice` weighs processes within a session alone where the kernel groups them by session
(autogroup); between services of systemd CPUWeight=idle of the unit does the same.
"""

from __future__ import annotations

import os
from contextlib import suppress

import psutil
import torch

MEMORY_SHARE = 0.5  # of the GPU's memory


def lower() -> None:
    """Give way to every other process, for processor and disk."""
    os.nice(19)
    process = psutil.Process()
    with suppress(OSError):  # a kernel or container that has no such class
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError, psutil.Error, AttributeError):
        process.ionice(psutil.IOPRIO_CLASS_IDLE)


def leave_room(device: torch.device) -> None:
    """Leave the rest of a GPU's memory to the daemon."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE, device)
