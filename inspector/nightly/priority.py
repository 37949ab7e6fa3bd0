"""Retraining takes what the line leaves over.

Within a group of processes SCHED_IDLE gives way to all others. Between groups the kernel shares by their
weights: under systemd CPUWeight=idle of the unit sees to it, and by hand the nice value of the session's
group (autogroup), which is put back at the end.
"""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from pathlib import Path

import psutil
import torch

LEAST = 19
MEMORY_SHARE = 0.5  # of the GPU's memory
AUTOGROUP = Path("/proc/self/autogroup")


def lower() -> None:
    """Give way to every other process, for processor and disk."""
    os.nice(LEAST)
    with suppress(OSError):  # a kernel or container that has no such class
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError, psutil.Error, AttributeError):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    _lower_the_group()


def _lower_the_group() -> None:
    with suppress(OSError):
        _, _, before = AUTOGROUP.read_text(encoding="ascii").rpartition(" nice ")  # "/autogroup-17 nice 0"
        if before and int(before) < LEAST:  # it is empty for a process that is in no such group
            AUTOGROUP.write_text(str(LEAST), encoding="ascii")
            atexit.register(_put_back, int(before))


def _put_back(nice: int) -> None:
    with suppress(OSError):
        AUTOGROUP.write_text(str(nice), encoding="ascii")


def leave_room(device: torch.device) -> None:
    """Leave the rest of a GPU's memory to the daemon."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE, device)
