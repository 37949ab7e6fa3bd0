"""The error map by OpenVINO: on some CPUs faster than torch's own layers (docs/performance.md).

In float32 alone: its 16 bits would reach what must not be rounded, memory and distances from banks. Like
oneDNN's, its activations make 0 of what is no number: a network whose answer is not finite must stay with
torch.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.errors import ModelError
from inspector.model.bundle import Bundle

PROCESSOR_S = 300  # for a conversion; by the clock it may take its time, behind all others on a busy machine
_running: set[subprocess.Popen[str]] = set()


def library() -> Any:
    """OpenVINO, without what it would tell its maker. Raises ModelError when it is not installed."""
    if importlib.util.find_spec("openvino") is None:
        raise ModelError(
            "engine.runtime is 'openvino', which is not installed: pip install openvino, or take 'torch'"
        )
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # so it cannot be imported
    import openvino

    return openvino


class Converted:
    """A bundle's error map, not smoothed, on the CPU: (B, 3, S, S) -> (B, S, S), float32.

    threads: 0 takes as many as torch does. Raises ModelError when OpenVINO is not installed, or refuses the
    network.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        core = library().Core()
        core.set_property({"ENABLE_MMAP": False})  # the file is gone when this returns
        with tempfile.TemporaryDirectory(prefix="inspector-openvino-") as folder:
            file = Path(folder) / "network.xml"
            _convert(bundle, file)
            model = core.compile_model(
                core.read_model(file),
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_PRECISION_HINT": "f32",
                    "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
                    "ENABLE_CPU_PINNING": False,  # several models would share the first cores
                },
            )
        self._request = model.create_infer_request()

    def __call__(self, x: Tensor) -> Tensor:
        """One picture after the other."""
        return torch.cat([self._one(picture) for picture in torch.split(x, 1)])

    def _one(self, x: Tensor) -> Tensor:
        found = self._request.infer({0: x.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(found[0])


def give_up() -> None:
    """End what is being converted, for the process that waits for it is to end."""
    for process in list(_running):
        process.kill()


def _convert(bundle: Bundle, file: Path) -> None:
    """Raises ModelError."""
    command = [sys.executable, "-m", "inspector.model.convert", str(bundle.path), str(file), str(PROCESSOR_S)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
        _running.add(process)
        try:
            _, said = process.communicate()
        finally:
            _running.discard(process)
    if process.returncode == -signal.SIGXCPU:
        raise ModelError(
            f"OpenVINO did not convert bundle {bundle.id[:12]} within {PROCESSOR_S} s of processor time; "
            "set engine.runtime to 'torch'"
        )
    if process.returncode != 0:
        last = (said.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise ModelError(f"engine.runtime 'openvino': {last}")
