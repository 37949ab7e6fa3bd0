"""What is done to the station. A fault returns, when its cause is gone, the time of that (monotonic ns)."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from tests.campaign.clock import Clock
from tests.campaign.daemon import Daemon
from tests.campaign.recorder import Recorder
from tests.campaign.server import MODES


@dataclass
class World:
    """A station under test."""

    folder: Path
    recorder: Recorder
    daemon: Daemon
    clock: Clock | None
    hold_s: dict[str, float]  # how long a cause lasts
    random: random.Random
    not_before: int = 0  # a verdict before this time (monotonic ns) is no sign of recovery
    lost: int = 0  # faults in a row from which it did not recover
    offsets: list[float] = field(default_factory=lambda: [3600.0, -3600.0, 86_400.0, 0.0, -7.0, 0.0])

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def pause(self, low: float, high: float) -> None:
        time.sleep(self.random.uniform(low, high))


class Fault(Protocol):
    """One fault, done once."""

    def __call__(self, world: World) -> int | None:
        """When its cause was gone; None when there was nothing to do it to."""
        ...


def kill_daemon(world: World) -> int:
    """SIGKILL at any moment, every other time just as a verdict arrives at the PLC."""
    pid = world.daemon.running()
    if world.random.random() < 0.5:
        world.recorder.kill_at_verdict(pid)
        world.pause(0.5, 1.0)  # while the daemon starts no verdict may come
    else:
        world.pause(0.0, 0.3)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    world.recorder.kill_at_verdict(None)
    return world.daemon.ended(pid)


def kill_camera(world: World) -> int | None:
    """SIGKILL to the camera's process, its frame in flight or not."""
    world.pause(0.0, 0.3)
    child = world.daemon.camera_process()
    if child is None:
        return None
    child.kill()
    killed, give_up = time.monotonic_ns(), time.monotonic() + 30
    while (new := world.daemon.camera_process()) is None or new.pid == child.pid:
        if time.monotonic() > give_up:
            break
        time.sleep(0.005)
    world.not_before = time.monotonic_ns()  # a frame that was on its way is no sign of the new process
    return killed


def stop_plc(world: World) -> int:
    """The network goes, or the PLC halts, restarts without memory, or with an older program."""
    how = world.random.choice(("network", "halt", "restart", "older program"))
    recorder = world.recorder
    recorder.stop()
    if how != "network":
        recorder.halt()
    if how == "restart":
        recorder.forget()
    if how == "older program":
        recorder.jump()
    world.pause(0.02, 1.5)
    if world.random.random() < 0.5:  # the program may be there before its server
        recorder.resume()
        world.pause(0.0, 0.3)
    recorder.start()
    over = time.monotonic_ns()
    recorder.resume()
    return over


def lose_memory(world: World) -> int:
    """The PLC's program starts anew without its memory, and its connections stand."""
    world.recorder.halt()
    world.recorder.forget()
    world.pause(0.3, 1.0)  # no PLC is faster
    over = time.monotonic_ns()
    world.recorder.resume()
    return over


def freeze_plc(world: World) -> int:
    """The PLC stands still with its connections open, and goes on."""
    world.recorder.freeze()
    world.pause(0.05, 1.0)
    world.recorder.thaw()
    return time.monotonic_ns()


def misbehave(mode: str, world: World) -> int:
    """The server answers slowly, wrongly or not at all for a while."""
    world.recorder.mode(mode)
    time.sleep(world.hold_s["server"])
    world.recorder.mode("")
    return time.monotonic_ns()


def hurry(world: World) -> int:
    """Triggers that come while a part is in work."""
    world.recorder.impatient(True)
    time.sleep(world.hold_s["overrun"])
    world.recorder.impatient(False)
    return time.monotonic_ns()


def repeat_sequence(world: World) -> int:
    """The PLC writes what its trigger registers hold already."""
    world.recorder.repeat()
    return time.monotonic_ns()


_LOCKER = """
import sqlite3, sys, time
log = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
log.execute("BEGIN IMMEDIATE")
time.sleep(float(sys.argv[2]))
log.execute("ROLLBACK")
"""


def lock_database(world: World) -> int:
    """Another process holds the log's write lock."""
    held = str(world.hold_s["lock"])
    subprocess.run([sys.executable, "-c", _LOCKER, world.data / "inspector.db", held], check=True)
    return time.monotonic_ns()


def refuse_writes(world: World) -> int:
    """A quota of one page: every write of the daemon to a file fails."""
    pid = world.daemon.running()
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    time.sleep(world.hold_s["disk"])
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    return time.monotonic_ns()


def fill_disk(world: World) -> int:
    """Not a byte is left on the log's disk."""
    ballast = world.data / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    time.sleep(world.hold_s["disk"])
    ballast.unlink()
    return time.monotonic_ns()


def step_clock(world: World) -> int:
    """The wall clock jumps by an hour or a day, forwards and back, or by seconds."""
    assert world.clock is not None
    world.clock.step_to(world.offsets[0])
    world.offsets.append(world.offsets.pop(0))
    return time.monotonic_ns()


SERVER_FAULTS: dict[str, Fault] = {f"server {mode}": partial(misbehave, mode) for mode in MODES}
