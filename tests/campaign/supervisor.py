"""What systemd is to a station, made cheap: the daemon is forked from a process that has its imports.

Reads one command a line from standard input, `prepare KIND FOLDER PORT FLOOR`, `start STATION_TOML`, `stop`,
and says on standard output, one JSON object a line, what became of it and when a daemon starts and ends. A
daemon that ends unasked is started again at once, as Restart=always does; from the fork on it is
`inspector run`.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path

from inspector import commands, settings
from inspector.camera import process
from inspector.errors import InspectorError
from tests.campaign import plants, station

SEEN_TO_S = 0.005
PAUSE_S = 0.1  # between an end and the next start
CAMERAS = dict.fromkeys(("scene", "coils"), "tests.campaign.scene") | {"genicam": process.CHILD}
IMPORTS = ("inspector.judges", "inspector.daemon", "inspector.model.engine")


class Supervisor:
    """One daemon at a time."""

    def __init__(self) -> None:
        self._config: Path | None = None
        self._pid: int | None = None

    def serve(self) -> None:
        """Until standard input ends."""
        while True:
            ready, _, _ = select.select([0], [], [], SEEN_TO_S)
            if ready:
                line = sys.stdin.readline()
                if not line:
                    return self.stop()
                name, *arguments = line.split()
                getattr(self, name)(*arguments)
                say("done", what=name)
            self._look_after()

    def prepare(self, kind: str, folder: str, port: str, floor: str) -> None:
        """Write a station, with a scene, with coils as well, or with a GenICam camera."""
        with_coils = partial(station.write, coils=True)
        write = {"scene": station.write, "coils": with_coils, "genicam": station.write_genicam}[kind]
        process.CHILD = CAMERAS[kind]
        write(Path(folder), int(port), int(floor))

    def start(self, config: str) -> None:
        """Keep the daemon of this station running."""
        self._config = Path(config)
        self._fork()

    def stop(self) -> None:
        """End it, as `systemctl stop` does."""
        self._config = None
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
            self._ended(os.waitpid(self._pid, 0)[1])

    def _look_after(self) -> None:
        if self._pid is None:
            return
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid:
            self._ended(status)
            time.sleep(PAUSE_S)
            if self._config is not None:
                self._fork()

    def _ended(self, status: int) -> None:
        say("ended", pid=self._pid, status=os.waitstatus_to_exitcode(status))
        self._pid = None

    def _fork(self) -> None:
        assert self._config is not None
        pid = os.fork()
        if pid == 0:
            os._exit(_run(self._config))
        self._pid = pid
        say("started", pid=pid)


def _run(config: Path) -> int:
    try:
        commands.run_station(settings.load(config))
    except InspectorError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def say(kind: str, **what: object) -> None:
    """One line for the campaign."""
    print(json.dumps({"t": time.monotonic_ns(), "is": kind} | what), flush=True)


if __name__ == "__main__":
    for module in IMPORTS:
        importlib.import_module(module)
    for plant in sys.argv[1:]:
        plants.PLANTS[plant]()
    say("ready")
    Supervisor().serve()
