"""What a measurement was made on: hardware and library versions, for its record."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("inspector", "torch", "timm", "numpy", "scipy", "opencv-python", "safetensors")


def hardware() -> dict[str, Any]:
    """What the run ran on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        cpu = next(named, f": {cpu}").split(":", 1)[1].strip()
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that can change a result."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
