"""A station for tests: a folder with pictures, a bundle, a station.toml, and the daemon as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from inspector.audit.log import AuditLog
from inspector.model import bundle as bundles
from inspector.model.network import build
from inspector.model.records import Architecture, Preprocessing, Scoring, Threshold

ARCHITECTURE = Architecture(size=32, patch=8, dim=32, depth=1, heads=2, slots=8)
PASSING, REJECTING = 1e6, 0.0
START_LIMIT_S = 60


def write_pictures(folder: Path, count: int, size: int = 48) -> None:
    """Noise, a file a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        picture = generator.integers(0, 255, (size, size, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index:03}.png"), picture)


def write_bundle(
    recipe_dir: Path,
    threshold: float | None = PASSING,
    architecture: Architecture = ARCHITECTURE,
    **changes: object,
) -> bundles.Bundle:
    """An untrained network, active, with this threshold (None: not calibrated)."""
    torch.manual_seed(0)
    evidence = None
    if threshold is not None:
        record = {
            "value": threshold,
            "target_rate": 0.005,
            "confidence": 0.95,
            "proven_rate": 0.005,
            "n": 598,
            "rank": 598,
            "method": "order-statistic",
            "device": "cpu",
            "precision": "float32",
            "created": "2026-01-01T00:00:00+00:00",
            "scores_sha256": "0" * 64,
            "source": "test",
        }
        evidence = Threshold(**(record | changes))
    bundle = bundles.write(
        recipe_dir,
        build(architecture).state_dict(),
        architecture,
        Preprocessing(size=architecture.size),
        Scoring(),
        threshold=evidence,
        provenance={"created": "2026-01-01T00:00:00+00:00"},
    )
    bundles.activate(recipe_dir, bundle.id)
    return bundle


def camera(
    name: str = "cam", *, base: int = 100, plc: int = 200, trigger: str = "plc", **keys: object
) -> str:
    """A [[camera]] table that replays <station>/pictures."""
    folder = {"path": "pictures", "fps": 20.0, "repeat": True} | keys.pop("folder", {})
    keys = {"deadline_ms": 5000} | keys  # a busy test machine is no late model
    lines = [
        "[[camera]]",
        f'name = "{name}"',
        'recipe = "part"',
        f'trigger = "{trigger}"',
        f"inspector_base = {base}",
        f"plc_base = {plc}",
        *(f"{key} = {toml(value)}" for key, value in keys.items()),
        "[camera.folder]",
        *(f"{key} = {toml(value)}" for key, value in folder.items()),
    ]
    return "\n".join(lines)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else str(value)


@dataclass
class Station:
    """A folder with everything that `inspector` needs."""

    root: Path
    port: int
    extra: dict[str, str] = field(default_factory=dict)
    daemon: subprocess.Popen | None = None

    @property
    def config(self) -> Path:
        return self.root / "station.toml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    def write(self, *cameras: str, plc: str = "", log: str = "", recipe: str = "", more: str = "") -> None:
        """station.toml with these cameras; the arguments add keys to their tables."""
        self.config.write_text(
            f'[station]\ndata = "data"\nstartup_timeout_s = 15\n[log]\nmin_free_mib = 1\n{log}\n'
            f"[plc]\nport = {self.port}\n{plc}\n[engine]\nthreads = 1\n{more}\n"
            + "\n".join(cameras)
            + f"\n[recipe.part]\nnumber = 7\n{recipe}\n"
        )

    def command(
        self, *arguments: str, patience_s: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `inspector …` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "inspector", *arguments],
            cwd=self.root,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )

    def start(self, module: str = "inspector", **environment: str) -> subprocess.Popen:
        """`inspector run` in the background; or a module that runs it in its own way."""
        with (self.root / "daemon.log").open("ab") as lines:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", module, "run"],
                cwd=self.root,
                env=self._environment({"PYTHONPATH": str(Path(__file__).parents[1])} | environment),
                stderr=lines,
            )
        return self.daemon

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(timeout=30)

    def kill(self) -> None:
        """SIGKILL."""
        self.daemon.kill()
        self.daemon.wait()

    def log(self) -> AuditLog:
        return AuditLog.open(self.data / "inspector.db", readonly=True)

    def said(self) -> str:
        """What the daemon wrote to standard error."""
        return (self.root / "daemon.log").read_text()

    @staticmethod
    def _environment(extra: dict[str, str]) -> dict[str, str]:
        return os.environ | {"OMP_NUM_THREADS": "1"} | extra


def until(condition: Callable[[], object], what: str, limit_s: float = START_LIMIT_S) -> None:
    """Wait for a condition; fails the test when it does not come true."""
    give_up = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up, f"{what} did not happen within {limit_s:g} s"
        time.sleep(0.01)
