"""Three GenICam cameras for minutes: `python -m tests.soak --minutes 10 --fps 20`.

The cameras are those of the genicam package's own GenTL producer, the daemon is a real process with a small
network, the PLC an independent Modbus server. Exit status 1 if a frame has no verdict or is late, a verdict
has no row, a sequence is missing or doubled, or memory grows. `nice -n -5` gives it the unit's priority.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import genicam
import psutil
from tqdm import tqdm

from inspector.plc.registers import Status
from tests.recorder import Recorder
from tests.station import Station, until, write_bundle

FORMATS = ("RGBa8", "Mono8", "RGBa8")
SETTLED_S = 20  # memory is compared from here on
GROWTH = 0.01


def camera(index: int, fps: float) -> str:
    producer = Path(genicam.__file__).with_name("viky.cti")
    return f"""
[[camera]]
name = "cam{index}"
recipe = "part"
trigger = "camera"
inspector_base = {100 + 100 * index}
plc_base = {1000 + 100 * index}
ring_slots = 8
[camera.genicam]
producer = "{producer}"
serial = "{index}"
[camera.genicam.features]
PixelFormat = "{FORMATS[index]}"
Width = 256
Height = 256
AcquisitionFrameRate = {float(fps)}
"""


def soak(folder: Path, minutes: float, fps: float) -> dict[str, object]:
    plc = Recorder()
    station = Station(folder, plc.port)
    write_bundle(station.data / "models" / "part")
    station.write(*(camera(i, fps) for i in range(3)), log='frames = "none"')
    process = psutil.Process(station.start().pid)
    until(lambda: all(plc.status(100 + 100 * i) & Status.READY for i in range(3)), "READY")
    memory, end = [], time.monotonic() + 60 * minutes
    with tqdm(total=round(60 * minutes), unit="s") as bar:
        while time.monotonic() < end and process.is_running():
            time.sleep(1)
            memory.append([p.memory_info().rss for p in [process, *process.children()]])
            bar.update()
    exit_status = station.stop()
    figures = [_camera_figures(station, plc, index, minutes) for index in range(3)]
    plc.stop()
    settled = [sum(sample) / 2**20 for sample in memory[SETTLED_S:]] or [0.0]
    fifth = max(1, len(settled) // 5)
    before, after = (sum(part) / len(part) for part in (settled[:fifth], settled[-fifth:]))
    return {
        "minutes": minutes,
        "fps": fps,
        "exit_status": exit_status,
        "cameras": figures,
        "memory_mib": {"start": before, "end": after, "growth": after / max(before, 1) - 1},
    }


def _camera_figures(station: Station, plc: Recorder, index: int, minutes: float) -> dict[str, object]:
    with station.log() as log:
        rows = log.inspections(camera=f"cam{index}", limit=None)
        lost = [e.message for e in log.events(camera=f"cam{index}", limit=None) if e.kind == "frames_lost"]
    numbers = [row.frame_id for row in rows if row.frame_id is not None]
    answered = {row.sequence for row in rows}  # one whose turn at the wire came too late has two rows
    began = min(row.time for row in rows)
    late = [(row.time - began).total_seconds() for row in rows if row.reason == "late"]
    verdicts = plc.verdicts(100 + 100 * index)
    sequences = Counter(sequence for sequence, _ in verdicts)
    latencies = sorted(row.latency_ms for row in rows if row.frame_id is not None)
    return {
        "format": FORMATS[index],
        # between the first and the last that arrived; lost ones at either end have rows beyond
        "frames_announced": max(numbers) - min(numbers) + 1,
        "parts_per_s": len(verdicts) / (60 * minutes),
        "rows": len(rows),
        "answered": len(answered),
        "verdicts": len(verdicts),
        "sequences_doubled": sum(count > 1 for count in sequences.values()),
        "sequences_missing": len(answered) - len(sequences),
        "verdicts_without_row": len(set(verdicts) - {(row.sequence, row.verdict) for row in rows}),
        "by_verdict": dict(Counter(verdict for _, verdict in verdicts)),
        "reasons": dict(Counter(row.reason for row in rows if row.reason)),
        "late": len(late),
        "late_at_s": sorted({round(second) for second in late})[:10],
        "lost": lost[:10],
        "latency_ms_p50": latencies[len(latencies) // 2],
        "latency_ms_p99": latencies[int(len(latencies) * 0.99)],
    }


def violations(figures: dict) -> list[str]:
    found = [] if figures["exit_status"] == 0 else [f"the daemon ended with {figures['exit_status']}"]
    for index, one in enumerate(figures["cameras"]):
        if one["answered"] != one["verdicts"]:
            found.append(f"cam{index}: {one['answered']} sequences in the log and {one['verdicts']} verdicts")
        if one["answered"] < one["frames_announced"]:
            found.append(f"cam{index}: {one['frames_announced']} frames and {one['answered']} answered")
        found += [
            f"cam{index}: {one[key]} {key}"
            for key in ("sequences_doubled", "sequences_missing", "verdicts_without_row", "late")
            if one[key]
        ]
    if figures["memory_mib"]["growth"] > GROWTH:
        found.append(f"memory grew by {figures['memory_mib']['growth']:.1%}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--fps", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = soak(Path(folder), arguments.minutes, arguments.fps)
    problems = violations(figures)
    print(json.dumps(figures, indent=2))
    print("\n".join(problems) or "no violation")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
