"""The error map by OpenVINO: on some CPUs faster than torch's own layers (docs/performance.md)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from inspector.errors import ModelError
from inspector.model.bundle import Bundle

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
PATIENCE_S = 600.0  # for a conversion


class Converted:
    """A bundle's error map, not smoothed, on the CPU: (B, 3, S, S) -> (B, S, S), float32.

    threads: 0 takes as many as torch does. Raises ModelError when OpenVINO is not installed, or refuses the
    network.
    """

    def __init__(self, bundle: Bundle, precision: str, threads: int) -> None:
        if importlib.util.find_spec("openvino") is None:
            raise ModelError(
                "engine.runtime is 'openvino', which is not installed: pip install openvino, or take 'torch'"
            )
        import openvino

        core = openvino.Core()
        with tempfile.TemporaryDirectory(prefix="inspector-openvino-") as folder:
            file = Path(folder) / "network.xml"
            _convert(bundle, file)
            model = core.compile_model(
                core.read_model(file),
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_PRECISION_HINT": HINTS[precision],
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


def _convert(bundle: Bundle, file: Path) -> None:
    """Raises ModelError."""
    command = [sys.executable, "-m", "inspector.model.convert", str(bundle.path), str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)  # noqa: S603 - our own module
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"bundle {bundle.id[:12]} was not converted for OpenVINO within {PATIENCE_S:g} s"
        ) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelError(f"engine.runtime 'openvino': {last}")
