"""The campaign's end of the supervisor: prepare a station, start it, know its process, stop it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.campaign.history import Event, History

LIMIT_S = 120.0
CAMERAS = {"inspector.camera.child", "tests.campaign.scene"}


class Daemon:
    """The station's daemon, whatever process it is by now."""

    def __init__(self, log: Path, plants: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.supervisor", *plants],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # a file would end with the disk, and with the quota
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )
        self._said: list[Event] = []
        self._history: History | None = None
        self.pid: int | None = None
        for work in (self._listen, lambda: self._drain(log)):
            threading.Thread(target=work, daemon=True).start()
        self._wait(lambda: any(event["is"] == "ready" for event in self._said), "its imports")

    def prepare(self, kind: str, folder: Path, port: int, floor_mib: int) -> None:
        """Write a station of this kind of camera into this folder."""
        self._tell("prepare", kind, str(folder), str(port), str(floor_mib))

    def start(self, config: Path, history: History) -> None:
        """Run this station until stop(), starting it anew whenever it ends."""
        self._history = history
        self._tell("start", str(config))

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._tell("stop")
        self._history = None

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(LIMIT_S)

    def ended(self, pid: int) -> int:
        """Wait for the end of this process; returns when it was."""

        def found() -> int | None:
            return next((e["t"] for e in self._said if e["is"] == "ended" and e["pid"] == pid), None)

        self._wait(found, f"the end of process {pid}")
        return found()

    def running(self) -> int:
        """The daemon's process, once there is one."""
        self._wait(lambda: self.pid, "a daemon")
        return self.pid

    def camera_process(self) -> psutil.Process | None:
        """The camera's process, None while there is none."""
        try:
            for child in psutil.Process(self.running()).children():
                if CAMERAS & set(child.cmdline()):
                    return child
        except psutil.Error:
            pass
        return None

    def _tell(self, *words: str) -> None:
        before = sum(event["is"] == "done" for event in self._said)
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        self._wait(lambda: sum(event["is"] == "done" for event in self._said) > before, words[0])

    def _listen(self) -> None:
        for line in self._process.stdout:
            event = json.loads(line)
            self._said.append(event)
            if event["is"] in ("started", "ended"):
                self.pid = event["pid"] if event["is"] == "started" else None
                if self._history is not None:
                    self._history.note(event["is"], **{k: v for k, v in event.items() if k != "is"})

    def _drain(self, log: Path) -> None:
        with log.open("a", buffering=1) as file:
            for line in self._process.stderr:
                file.write(line)

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        give_up = time.monotonic() + LIMIT_S
        while not condition():
            if self._process.poll() is not None:
                raise RuntimeError(f"the supervisor has ended with {self._process.returncode}")
            if time.monotonic() > give_up:
                raise RuntimeError(f"waited {LIMIT_S:g} s for {what} in vain")
            time.sleep(0.002)
