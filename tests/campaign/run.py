"""The order of play: one station after the other, its faults one after the other, then the judgement."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from tests import libmodbus
from tests.campaign import faults, figures, judgement
from tests.campaign.clock import Clock
from tests.campaign.daemon import Daemon
from tests.campaign.faults import Fault, World
from tests.campaign.figures import Verdict
from tests.campaign.history import History, read
from tests.campaign.judgement import RECOVERED_S
from tests.campaign.program import PATIENCE_S
from tests.campaign.recorder import Recorder
from tests.campaign.station import DEADLINE_MS, SCORES, TIMEOUT_MS

READY = 1
DISK_MIB = 28  # journal, models and rows take a third of it
FLOOR_MIB = 4
START_LIMIT_S = 60.0
AT_ONCE = 0.15  # so often the next kill does not wait for the daemon to have recovered
GIVE_UP_AFTER = 3
Room = Callable[[Path, dict[str, str], dict[str, Fault]], AbstractContextManager[Path | None]]


class StationLost(RuntimeError):
    """The daemon does not come back: there is nothing left to judge."""


@dataclass(frozen=True)
class Plan:
    """How often, and for how long."""

    times: dict[str, int]
    hold_s: dict[str, float]
    patience_s: float = PATIENCE_S


FULL = Plan(
    times={
        "daemon kill -9": 200,
        "camera kill -9": 100,
        "PLC stopped": 100,
        "PLC memory lost": 20,
        **dict.fromkeys(faults.SERVER_FAULTS, 5),
        "trigger while busy": 20,
        "sequence repeated": 20,
        "log locked": 5,
        "writes refused": 10,
        "clock stepped": 24,
        "coils: daemon kill -9": 20,
        "coils: PLC stopped": 20,
        "coils: server slow": 3,
        "coils: server hang-up": 3,
        "coils: server late-execution": 3,
        "coils: refused alone": 3,
        "libmodbus: daemon kill -9": 20,
        "libmodbus: PLC stopped": 20,
        "libmodbus: PLC frozen": 20,
        "libmodbus: trigger while busy": 5,
        "disk full": 10,
        "GenICam camera kill -9": 20,
    },
    hold_s={"server": 2.5, "overrun": 2.0, "lock": 10.0, "disk": 3.0},
)
SHORT = Plan(
    times={
        "daemon kill -9": 6,
        "camera kill -9": 2,
        "PLC stopped": 4,
        "PLC memory lost": 2,
        **dict.fromkeys(faults.SERVER_FAULTS, 1),
        "trigger while busy": 1,
        "sequence repeated": 2,
        "log locked": 1,
        "writes refused": 1,
        "clock stepped": 4,
        "coils: daemon kill -9": 1,
        "coils: PLC stopped": 2,
        "coils: server slow": 1,
        "coils: server hang-up": 1,
        "coils: server late-execution": 1,
        "coils: refused alone": 1,
        "libmodbus: daemon kill -9": 1,
        "libmodbus: PLC stopped": 2,
        "libmodbus: PLC frozen": 1,
        "libmodbus: trigger while busy": 1,
        "disk full": 1,
        "GenICam camera kill -9": 1,
    },
    hold_s={"server": 0.4, "overrun": 1.0, "lock": 1.0, "disk": 0.8},
)
LINE: dict[str, Fault] = {
    "daemon kill -9": faults.kill_daemon,
    "camera kill -9": faults.kill_camera,
    "PLC stopped": faults.stop_plc,
    "PLC memory lost": faults.lose_memory,
    **faults.SERVER_FAULTS,
    "trigger while busy": faults.hurry,
    "sequence repeated": faults.repeat_sequence,
    "log locked": faults.lock_database,
    "writes refused": faults.refuse_writes,
    "clock stepped": faults.step_clock,
}
DISK: dict[str, Fault] = {"disk full": faults.fill_disk}
COILS: dict[str, Fault] = {
    "coils: daemon kill -9": faults.kill_daemon,
    "coils: PLC stopped": faults.stop_plc,
    **{
        f"coils: {name}": faults.SERVER_FAULTS[name]
        for name in ("server slow", "server hang-up", "server late-execution")
    },
    "coils: refused alone": partial(faults.misbehave, "no-coils"),
}
LIBMODBUS: dict[str, Fault] = {
    "libmodbus: daemon kill -9": faults.kill_daemon,
    "libmodbus: PLC stopped": faults.stop_plc,
    "libmodbus: PLC frozen": faults.freeze_plc,
    "libmodbus: trigger while busy": faults.hurry,
}
GENICAM: dict[str, Fault] = {"GenICam camera kill -9": faults.kill_camera}


@dataclass
class Outcome:
    """What a campaign has to show."""

    verdict: Verdict
    skipped: dict[str, str]  # fault and why it could not be done here


def campaign(plan: Plan, seed: int, plants: list[str], keep: Path | None = None) -> Outcome:
    """Every fault of the plan that this machine can produce."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        skipped: dict[str, str] = {}
        clock = _clock(folder, skipped)
        daemon = Daemon(folder / "daemon.log", plants, clock.environment if clock else {})
        outcome = Outcome(Verdict({}, []), skipped)
        with tqdm(total=sum(plan.times.values()), unit="fault") as bar:
            try:
                for stage in STAGES:
                    chosen = {f: act for f, act in stage.faults.items() if plan.times.get(f)}
                    if not chosen:
                        continue
                    with stage.room(folder / stage.name, skipped, chosen) as root:
                        if root is not None and chosen:
                            one = _station(root, stage, plan, seed, clock, daemon, chosen, bar)
                            outcome.verdict.figures.update(one.figures)
                            outcome.verdict.found.extend(one.found)
            finally:
                daemon.close()
        return outcome


def _clock(folder: Path, skipped: dict[str, str]) -> Clock | None:
    try:
        return Clock(folder)
    except RuntimeError as error:
        skipped["clock stepped"] = str(error)
        return None


@contextmanager
def _folder(root: Path, skipped: dict[str, str], chosen: dict[str, Fault]) -> Iterator[Path]:
    for name in skipped:
        chosen.pop(name, None)
    root.mkdir()
    yield root


@contextmanager
def _small_disk(root: Path, skipped: dict[str, str], chosen: dict[str, Fault]) -> Iterator[Path | None]:
    """A folder whose `data` is a file system of a few MiB; None where it cannot be mounted."""
    (root / "data").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "campaign", root / "data"]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        skipped["disk full"] = "mounting a small file system needs root; see 'writes refused'"
        yield None
    else:
        try:
            yield root
        finally:
            subprocess.run(["umount", "--lazy", root / "data"], check=True)


@contextmanager
def _second_server(root: Path, skipped: dict[str, str], chosen: dict[str, Fault]) -> Iterator[Path | None]:
    """A folder, if the second Modbus server can be had."""
    try:
        libmodbus.program()
    except libmodbus.Missing as missing:
        skipped.update(dict.fromkeys(chosen, str(missing)))
        yield None
    else:
        root.mkdir()
        yield root


@dataclass(frozen=True)
class Stage:
    """One station and what is done to it."""

    name: str
    room: Room
    faults: dict[str, Fault]
    kind: str = "scene"  # see supervisor.prepare()
    server: str = "pyModbusTCP"


STAGES = (
    Stage("line", _folder, LINE),
    Stage("coils", _folder, COILS, "coils"),
    Stage("libmodbus", _second_server, LIBMODBUS, "coils", "libmodbus"),
    Stage("disk", _small_disk, DISK),
    Stage("genicam", _folder, GENICAM, "genicam"),
)
LOG_FAILS = (faults.lock_database, faults.refuse_writes, faults.fill_disk)


def _station(
    root: Path,
    stage: Stage,
    plan: Plan,
    seed: int,
    clock: Clock | None,
    daemon: Daemon,
    chosen: dict[str, Fault],
    bar: tqdm,
) -> Verdict:
    """One station: start it, do all of its faults, stop it, judge."""
    database = root / "data" / "inspector.db"
    recorder = Recorder(root, stage.server, seed, plan.patience_s)
    marks = History(root / "marks.jsonl")
    world = World(root, recorder, daemon, clock, plan.hold_s, random.Random(seed))
    free = stage.kind == "genicam"
    daemon.prepare(stage.kind, root, recorder.port(), FLOOR_MIB)
    daemon.start(root / "station.toml", marks)
    _until(lambda: recorder.status() & READY, "READY")
    marks.note("phase", name=next(iter(chosen)))
    if free:
        recorder.finish()  # no triggers: the camera has its own
    recorder.resume()
    for name, act in chosen.items():
        bar.set_description(name)
        marks.note("phase", name=name, log_fails=act in LOG_FAILS)
        for number in range(plan.times[name]):
            _once(world, marks, act, last=number == plan.times[name] - 1)
            bar.update()
            if world.lost >= GIVE_UP_AFTER:
                raise StationLost(
                    f"no verdict after {world.lost} faults in a row; see {root.parent}/daemon.log"
                )
    recorder.finish()
    _until(lambda: not recorder.waiting(), "the last part's verdict", plan.patience_s + 5)
    time.sleep(1.0)  # for the answers to triggers that came while a part was in work
    marks.note("stopping")
    daemon.stop()
    recorder.close()
    if faults.step_clock in chosen.values() and not figures.stepped(database, 1800):
        raise RuntimeError("the daemon did not see its clock stepped; was clock.c preloaded?")
    events = read(root / "plc.jsonl", root / "marks.jsonl")
    logged = figures.rows(database)
    if free:
        return judgement.judge_free(events, logged)
    scores = json.loads((root / SCORES).read_text())
    return judgement.judge(events, logged, DEADLINE_MS, TIMEOUT_MS, scores)


def _once(world: World, marks: History, act: Fault, *, last: bool) -> None:
    marks.note("fault", kills=act is faults.kill_daemon)
    over = act(world)
    if over is None:
        marks.note("undone")
        return
    seen = max(over, world.not_before)
    marks.note("over", t=over, seen=seen)
    if act is faults.kill_daemon and not last and world.random.random() < AT_ONCE:
        world.pause(0.0, 1.0)
        return
    give_up = time.monotonic() + RECOVERED_S
    while world.recorder.last_good() <= seen:
        if time.monotonic() > give_up:
            marks.note("not_recovered")
            world.lost += 1
            return
        time.sleep(0.01)
    world.lost = 0
    world.pause(0.0, 0.3)


def _until(condition, what: str, limit_s: float = START_LIMIT_S) -> None:
    give_up = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError(f"waited {limit_s:g} s for {what} in vain")
        time.sleep(0.02)
