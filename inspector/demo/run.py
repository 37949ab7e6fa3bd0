"""`inspector demo`: the whole station once, with drawn parts, a folder for a camera and a simulated PLC.

Nothing here is special to the demo but the parts: training, calibration and the daemon are the commands
that an integrator uses, the daemon in a process of its own as under systemd.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from inspector import overrides
from inspector.audit.records import LoggedInspection
from inspector.calibration import Asked, calibrate_recipe
from inspector.commands import train_recipe
from inspector.demo.parts import read_truth, write_set
from inspector.errors import InspectorError, SettingsError
from inspector.listing import open_for_reading, write_overlay
from inspector.plc.connect import register_order
from inspector.plc.simulator import CameraMap, Simulator
from inspector.plc.simulator_line import Counts, Line
from inspector.settings import Settings, load
from inspector.verdict import Verdict

MARK = "# Written by `inspector demo`, and overwritten by it."
STATION = """\
{mark} The keys are explained in the top-level station.toml.
[station]
name = "demo"
data = "data"

[plc]
port = {port}

[[camera]]
name = "cam1"
recipe = "flange"
trigger = "plc"
deadline_ms = 3000

[camera.folder]
path = "parts/line"
repeat = false

[recipe.flange]
number = 1
preset = "tiny"
false_reject_rate = 0.03
"""
TRAIN_PARTS = 100
CALIBRATION_PARTS = 120
DEFECTIVE = 0.4  # share of the parts on the line
PERIOD_S = 0.25
START_LIMIT_S = 60.0
OVERLAYS = 4


@dataclass(frozen=True)
class Outcome:
    """What the line did with the demo's parts."""

    rows: list[LoggedInspection]
    truth: dict[str, str | None]
    counts: Counts
    torn: int


def run_demo(folder: Path, parts: int, seed: int) -> None:
    """Draw, train, calibrate, inspect, and show what came of it."""
    console = Console()
    started = time.monotonic()
    _leave_other_stations_alone()
    _prepare(folder)
    console.rule("1  parts", align="left")
    _draw(folder / "parts", parts, seed)
    with Simulator(cameras=[CameraMap("cam1")], record=True) as simulator:
        settings = _station(folder, simulator.port)
        console.rule("2  train", align="left")
        for line in train_recipe(settings, "flange", folder / "parts" / "train", None, None, None, seed):
            console.print(line, highlight=False)
        console.rule("3  calibrate", align="left")
        source = folder / "parts" / "calibrate"
        for line in calibrate_recipe(settings, "flange", Asked(images=source)):
            console.print(line, highlight=False)
        console.rule("4  inspect", align="left")
        simulator.order = register_order(settings.plc)
        counts = _play(settings, folder, simulator, parts)
        console.rule("5  result", align="left")
        with open_for_reading(settings) as log:
            rows = log.inspections(limit=None)
        outcome = Outcome(rows, read_truth(folder / "parts" / "line"), counts, simulator.torn)
        console.print(_verdicts(outcome), _registers(simulator), _latency(outcome))
    _overlays(settings, folder, outcome, console)
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    console.print(f"done in {minutes} min {seconds} s; try: inspector log -c {folder}/station.toml")
    _refuse_incomplete(outcome, parts)


def _leave_other_stations_alone() -> None:
    """INSPECTOR_* that is set here for a real station would send the demo to its PLC and its log."""
    for variable in overrides.variables():
        del os.environ[variable]


def _prepare(folder: Path) -> None:
    """Clear what an earlier demo left; never anything else."""
    station = folder / "station.toml"
    if station.is_file() and station.read_text(encoding="utf-8").startswith(MARK):
        for name in ("parts", "data", "overlays"):
            shutil.rmtree(folder / name, ignore_errors=True)
    elif folder.exists() and any(folder.iterdir()):
        raise SettingsError(
            f"--folder {folder}: holds files that are not of an earlier demo; give a new or empty folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--folder {folder}: cannot be made ({error.strerror})") from None


def _draw(folder: Path, parts: int, seed: int) -> None:
    bad = max(1, round(DEFECTIVE * parts))
    with tqdm(total=TRAIN_PARTS + CALIBRATION_PARTS + parts, desc="draw", unit="part") as bar:

        def drawn() -> None:
            bar.update()

        write_set(folder / "train", good=TRAIN_PARTS, seed=3 * seed, progress=drawn)
        write_set(folder / "calibrate", good=CALIBRATION_PARTS, seed=3 * seed + 1, progress=drawn)
        write_set(folder / "line", good=parts - bad, bad=bad, seed=3 * seed + 2, progress=drawn)


def _station(folder: Path, port: int) -> Settings:
    path = folder / "station.toml"
    path.write_text(STATION.format(mark=MARK, port=port), encoding="utf-8")
    return load(path)


def _play(settings: Settings, folder: Path, simulator: Simulator, parts: int) -> Counts:
    """Run the daemon as systemd would, the simulated PLC triggering, until every part has its verdict."""
    command = [sys.executable, "-m", "inspector", "run", "--config", str(folder / "station.toml")]
    with (
        (folder / "daemon.log").open("w", encoding="utf-8") as lines,
        subprocess.Popen(command, stderr=lines, env=os.environ) as daemon,  # noqa: S603 - our own program
    ):
        try:
            return _trigger(settings, folder, simulator, parts, daemon)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=30)


def _trigger(
    settings: Settings, folder: Path, simulator: Simulator, parts: int, daemon: subprocess.Popen[bytes]
) -> Counts:
    camera = settings.camera[0]
    give_up = time.monotonic() + START_LIMIT_S
    with (
        Line(
            simulator,
            camera.name,
            period_s=PERIOD_S,
            timeout_s=camera.deadline_ms / 1000 + 1,
            recipe=settings.recipe["flange"].number,
            parts=parts,
        ) as line,
        tqdm(total=parts, desc="inspect", unit="part") as bar,
    ):
        while (done := line.counts.answered + line.counts.unanswered) < parts:
            bar.update(done - bar.n)
            ended = daemon.poll() is not None and not line.counts.triggered
            if ended or (not done and time.monotonic() > give_up):
                raise InspectorError(f"the daemon did not get ready; {folder}/daemon.log says why")
            time.sleep(0.05)
        bar.update(done - bar.n)
        return line.counts


def _verdicts(outcome: Outcome) -> Table:
    """Verdicts against truth, a row for good parts and one for each kind of defect."""
    table = Table(title="verdicts against truth", title_justify="left")
    for name in ("truth", "parts", "PASS", "REJECT", "FAULT", "score (median)"):
        table.add_column(name, justify="left" if name == "truth" else "right")
    kinds = sorted({truth for truth in outcome.truth.values() if truth is not None})
    for kind in [None, *kinds]:
        rows = [row for row in outcome.rows if row.source and outcome.truth[row.source] == kind]
        scores = [row.score for row in rows if row.score is not None]
        table.add_row(
            kind or "good",
            str(len(rows)),
            *(str(sum(row.verdict == verdict for row in rows)) for verdict in Verdict),
            f"{np.median(scores):.4g}" if scores else "-",
        )
    return table


def _registers(simulator: Simulator) -> Table:
    """The inspector's block as the PLC holds it."""
    block, raw = simulator.inspector("cam1"), simulator.inspector_registers("cam1")
    table = Table(title=f"PLC registers 100–112 ({simulator.host}:{simulator.port})", title_justify="left")
    table.add_column("field")
    table.add_column("value", justify="right")
    for name in block.__dataclass_fields__:
        value = getattr(block, name)
        table.add_row(name, f"{value:.5g}" if isinstance(value, float) else str(int(value or 0)))
    table.caption = f"raw: {raw}"
    return table


def _latency(outcome: Outcome) -> Table:
    """Trigger to verdict, as the rows have it."""
    values = [row.latency_ms for row in outcome.rows if row.latency_ms is not None]
    table = Table(title="latency, trigger → row committed (ms)", title_justify="left")
    for name in ("p50", "p99", "max"):
        table.add_column(name, justify="right")
    table.add_row(*(f"{np.percentile(values, q):.1f}" for q in (50, 99, 100)))
    return table


def _overlays(settings: Settings, folder: Path, outcome: Outcome, console: Console) -> None:
    """The highest and the lowest scores, good and bad: the pictures that say most."""
    (folder / "overlays").mkdir(exist_ok=True)
    scored = [row for row in outcome.rows if row.score is not None and row.source]
    scored.sort(key=lambda row: row.score or 0.0)
    good = [row for row in scored if outcome.truth[row.source or ""] is None]
    bad = [row for row in scored if outcome.truth[row.source or ""] is not None]
    half = OVERLAYS // 2
    for row in [*good[-half:], *bad[-half:]]:
        out = folder / "overlays" / f"{outcome.truth[row.source or ''] or 'good'}-{row.id}.png"
        write_overlay(settings, row.id, out)
        console.print(f"overlay {out}", highlight=False)


def _refuse_incomplete(outcome: Outcome, parts: int) -> None:
    """A demo that lost a part must not look like a success."""
    counts = outcome.counts
    if len(outcome.rows) != parts or counts.answered != parts or counts.sequence_errors or outcome.torn:
        raise InspectorError(
            f"{parts} parts were triggered, {counts.answered} verdicts came in time, "
            f"{len(outcome.rows)} rows are in the log, "
            f"{counts.sequence_errors} sequence errors, {outcome.torn} torn writes"
        )
