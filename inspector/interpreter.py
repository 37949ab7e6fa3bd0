"""The interpreter as it runs on the line: no thread and no collection holds up a verdict for long."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH_S = 0.0001  # python's own 5 ms would let the evidence thread hold up a verdict for as long


@contextmanager
def prompt() -> Iterator[None]:
    """To be entered when everything is loaded: a full collection that walks through torch takes 0.1 s, one
    through a camera's process some milliseconds. What loading left behind goes first, or it would stay.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # or triton tells of hundreds of leaks at the exit, below the message that matters
        sys.setswitchinterval(before)
