"""A bundle's network as a file that OpenVINO reads: `python -m inspector.model.convert BUNDLE OUT SECONDS`.

A process of its own, behind all others, for the conversion takes seconds of Python in which a daemon that
judges parts would stand still. It ends with whoever waits for it, or after SECONDS of processor time.
Nothing is rounded: what the file says in float32 is what the network says.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from inspector.errors import InspectorError, ModelError
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.converted import library
from inspector.model.fast import plain_network

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
BEHIND = 15  # steps of priority


class _ErrorMap(nn.Module):
    """(1, 3, S, S) -> (1, S, S), as Network.anomaly_map()."""

    def __init__(self, bundle: Bundle):
        super().__init__()
        self.network = plain_network(bundle)
        self.network.for_inference()
        self.scoring = bundle.scoring

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.network.anomaly_map(x, self.scoring)


@torch.no_grad()
def convert(bundle: Bundle, out: Path) -> None:
    """Write out (.xml) and a .bin beside it. Raises ModelError for a network that cannot be converted."""
    openvino = library()
    size = bundle.preprocessing.size
    example = torch.zeros(1, 3, size, size)
    try:
        traced = torch.jit.trace(_ErrorMap(bundle).eval(), example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]  # torch says not
        model = openvino.convert_model(
            torch.jit.freeze(traced), example_input=example, input=list(example.shape)
        )
    except Exception as error:  # torch's tracer and OpenVINO's frontends have classes of their own
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelError(
            f"OpenVINO {openvino.__version__} cannot convert the network of bundle {bundle.id[:12]} ({last})"
            "; set engine.runtime to 'torch'"
        ) from error
    try:
        openvino.save_model(model, out, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{out} cannot be written for OpenVINO ({error}); is there room?") from error


def main() -> int:
    """0, or 1 and one line on standard error."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]), resource.getrlimit(resource.RLIMIT_CPU)[1]))
    os.nice(BEHIND)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the tracer, for each size that it takes for fixed, as it is
    try:
        convert(bundles.load(Path(sys.argv[1])), Path(sys.argv[2]))
    except InspectorError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
