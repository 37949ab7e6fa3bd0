"""Whether the network is being converted for another runtime, which knows fewer operators than torch."""

from __future__ import annotations

import torch


def converting() -> bool:
    """Whether torch records what is computed, instead of only computing it (see convert.py)."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]  # torch leaves both out
