"""All that a GPU must show, in under 8 minutes: `python -m tests.gpu --json gpu.json`.

The tests of the CUDA graph, then the engine of each method at paper size beside plain eager float32, the
floor and anomalib's models where they are installed, then the station at 50 parts a second, of one camera
(`--minutes 10` for the long run) and of four. `--device cpu --preset tiny --rounds 3 --parts 10 --minutes
0.1` tries the script out, as test_gpu.py does. Exit status 1 if a mark is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from inspector.bench import engine as engines
from inspector.bench import station
from inspector.settings import EngineSettings

GRAPH = Path(__file__).parent / "inspector" / "model" / "test_graph.py"
PRECISIONS = {"cuda": ("bfloat16", "float16", "float32"), "cpu": ("float32",)}  # the line has the first
FOUR, FOUR_MINUTES = 4, 1.0  # cameras that share the engine
FASTER, FLOOR, JITTER = 4.0, 3.0, 1.2  # marks, for the paper's method at batch 1


def measured(folder: Path, preset: str, device: str, rounds: int, parts: int) -> dict[str, dict]:
    """Figures by method and precision."""
    precisions = PRECISIONS[device.partition(":")[0]]
    cases = [("paper", precision) for precision in precisions]
    cases += [(method, precisions[0]) for method in ("restore", "feature")]
    figures = {}
    for method, precision in tqdm(cases, unit="case"):
        settings = EngineSettings(device=device, precision=precision)
        bundle = engines.untrained(folder, method, preset)
        figures[f"{method} {precision}"] = engines.measure(
            bundle, settings, rounds=rounds, fps=50, parts=parts, size=1024, compare=method == "paper"
        )
    return figures


def on_the_line(folder: Path, preset: str, device: str, minutes: float, fps: float, cameras: int) -> dict:
    """The daemon with the paper's network, cameras of 1024 x 1024 pixels, fps frames in all, and a PLC."""
    settings = EngineSettings(device=device, precision=PRECISIONS[device.partition(":")[0]][0])
    judge = station.bundle_judge(engines.untrained(folder, "paper", preset), settings, cameras)
    return station.measure(
        judge, parts=round(60 * minutes * fps), fps=fps / cameras, size=1024, cameras=cameras
    )


def missed(figures: dict, fps: float) -> list[str]:
    found = []
    best = min(
        (one for case, one in figures["engine"].items() if case.startswith("paper ")),
        key=lambda one: one["in_turns_ms"]["engine"]["p50"],
    )
    ratios, own = best["ratios"], best["in_turns_ms"]["engine"]
    for what, value, mark, good in (
        ("times faster than eager float32", ratios["faster_than plain eager float32"], FASTER, "at least"),
        ("times the floor", ratios["to_floor"], FLOOR, "at most"),
        ("p99/p50", own["p99"] / own["p50"], JITTER, "at most"),
    ):
        if (value < mark) if good == "at least" else (value > mark):
            found.append(f"paper, {best['precision']}: {value:.2f} {what}, expected {good} {mark}")
    found += [
        f"paper, {best['precision']}: slower than {name.removeprefix('faster_than ')} ({value:.2f})"
        for name, value in ratios.items()
        if name in ("faster_than anomalib PatchCore", "faster_than anomalib EfficientAd-M") and value < 1
    ]
    if importlib.util.find_spec("anomalib") is None:
        found.append("nothing to compare with: anomalib is not installed (pip install '.[bench]')")
    for cameras, line in figures["line"].items():
        late, faults = line["stages_ms"]["total"]["max"], line["faults"]
        if faults or late > 1000 * cameras / fps:
            who = f"the line, cameras: {cameras}"
            found.append(f"{who}: {faults} faults, slowest part {late:.1f} ms at {fps:g} parts/s")
    if figures["tests"]:
        found.append("tests of the CUDA graph failed")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--fps", type=float, default=50.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--parts", type=int, default=200)
    a = parser.parse_args(arguments)
    if a.device.startswith("cuda") and not torch.cuda.is_available():
        print("torch sees no CUDA device here; this needs one")
        return 2
    began = time.monotonic()
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(GRAPH)]
    figures: dict = {"tests": subprocess.run(tests, check=False).returncode}
    figures["line"] = {}
    with tempfile.TemporaryDirectory(prefix="inspector-gpu-") as folder:
        figures["engine"] = measured(Path(folder), a.preset, a.device, a.rounds, a.parts)
        for cameras, minutes in ((1, a.minutes), (FOUR, min(a.minutes, FOUR_MINUTES))):
            figures["line"][cameras] = on_the_line(Path(folder), a.preset, a.device, minutes, a.fps, cameras)
    figures["seconds"] = time.monotonic() - began
    figures["missed"] = missed(figures, a.fps)
    a.json.write_text(json.dumps(figures, indent=2) + "\n")
    print("\n".join(figures["missed"]) or "all marks are met")
    print(f"figures in {a.json}; {figures['seconds']:.0f} s")
    return 1 if figures["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
