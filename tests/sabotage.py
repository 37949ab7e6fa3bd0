"""`inspector run` with a model that fails on demand: the file `sabotage` in the station's folder says how."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from inspector import cli
from inspector.model.network import Autoencoder, Reconstruction

ORDER = Path("sabotage")
_reconstruct = Autoencoder.reconstruct


def reconstruct(self: Autoencoder, x: torch.Tensor) -> Reconstruction:
    """The network, unless it is told otherwise."""
    found = _reconstruct(self, x)
    match ORDER.read_text() if ORDER.exists() else "":
        case "memory":
            torch.empty(1 << 50)  # more than there is: torch's own error
        case "gpu memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        case "library":
            raise TypeError("conv2d() got an unexpected keyword argument")
        case "nan":
            return found._replace(output=found.output * torch.nan)
        case "slow":
            time.sleep(1.0)
        case "hang":
            while ORDER.exists():
                time.sleep(0.05)
    return found


if __name__ == "__main__":
    Autoencoder.reconstruct = reconstruct  # type: ignore[method-assign]
    cli.main()
