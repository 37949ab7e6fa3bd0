"""A daemon beside a retraining: `python -m tests.beside [--blocks 6] [--seconds 20] [--fps 10]`.

One run: the daemon judges parts all the time, and `inspector retrain`, a process in a session of its own, is
stopped and let go on in turn. What differs between the two kinds of blocks is the retraining alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from inspector import logs
from inspector.audit.log import AuditLog
from inspector.bench import station as bench
from inspector.daemon import Daemon
from inspector.interpreter import prompt
from inspector.judges import load
from inspector.model.records import preset
from inspector.settings import EngineSettings, Logging
from tests.inspector.nightly_station import inspect, prepare
from tests.station import write_bundle

SETTLE_S = 2.0  # after each turn


def measure(folder: Path, blocks: int, seconds: float, fps: float, method: str, size: str) -> dict:
    (folder / "night").mkdir()
    station = prepare(folder / "night")
    inspect(station, 150, 3)
    logs.configure(Logging(level="error"))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    plc = context.Process(target=bench._serve, args=(theirs, 1), daemon=True)
    plc.start()
    line = bench._station(folder, ours.recv(), fps, 384, 1)
    line = line.model_copy(update={"engine": EngineSettings(device="auto", threads=1)})
    write_bundle(line.models / "bench", 1e6, preset(size, method))
    seen: list[tuple[float, float]] = []
    spans: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with AuditLog.open(line.database) as log:
        daemon = Daemon(
            line,
            log,
            load(line, log),
            lambda answer: seen.append((time.monotonic(), answer.stages["total"])),
        )
        night = subprocess.Popen(
            [sys.executable, "-m", "inspector", "retrain", "--epochs", "100000"],
            cwd=station.root,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )

        def turns() -> None:
            time.sleep(20)  # its imports are over
            for number in range(2 * blocks):
                trains = number % 2 == 1
                night.send_signal(signal.SIGCONT if trains else signal.SIGSTOP)
                time.sleep(SETTLE_S)
                began = time.monotonic()
                time.sleep(seconds)
                spans[trains].append((began, time.monotonic()))
            daemon.stop()

        threading.Thread(target=turns, daemon=True).start()
        with prompt():
            daemon.run()
        assert night.poll() is None, "the retraining ended too soon"
        night.kill()
    ours.send(None)
    plc.join()
    figures: dict[str, object] = {"method": method, "preset": size, "fps": fps}
    for name, trains in (("alone", False), ("beside", True)):
        values = [ms for at, ms in seen if any(a <= at < b for a, b in spans[trains])]
        p50, p99, top = np.percentile(values, (50, 99, 100)).round(2).tolist()
        figures[name] = {"parts": len(values), "p50": p50, "p99": p99, "max": top}
    figures["p99_ratio"] = round(figures["beside"]["p99"] / figures["alone"]["p99"], 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=6, help="of each kind")
    parser.add_argument("--seconds", type=float, default=20, help="of a block")
    parser.add_argument("--fps", type=float, default=10)
    parser.add_argument("--method", default="paper")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inspector-beside-") as folder:
        figures = measure(Path(folder), asked.blocks, asked.seconds, asked.fps, asked.method, asked.preset)
    print(json.dumps(figures, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
