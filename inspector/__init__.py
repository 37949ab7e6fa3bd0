"""Inspect parts on a line: camera, model, verdict, PLC, log."""

import os

__version__ = "0.1.0"

# Read when torch loads its OpenMP: threads that spin while they wait starve whatever shares the cores with
# them (cameras, the running daemon beside a training). Spinning cost a training on two busy cores 12 times
# the processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
