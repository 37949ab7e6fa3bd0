"""A wall clock that the campaign can step, for the daemon alone: the machine's own is not ours to set."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path


class Clock:
    """The offset of the daemon's wall clock; clock.c adds it in the daemon's process."""

    def __init__(self, folder: Path) -> None:
        """Raises RuntimeError where there is no C compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("no C compiler for tests/campaign/clock.c")
        library, offset = folder / "clock.so", folder / "clock.offset"
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
        offset.write_bytes(bytes(8))
        with offset.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "CAMPAIGN_CLOCK": str(offset)}

    def step_to(self, seconds: float) -> None:
        """Set the wall clock to the true time plus so many seconds."""
        self._memory[:] = struct.pack("q", int(seconds * 1e9))
